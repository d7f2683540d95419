// Elements, and what every part of the page writes: numbers, times, reasons in words.

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'style') for (const [rule, set] of Object.entries(value)) element.style.setProperty(rule, set);
    else if (name === 'data') for (const [key, set] of Object.entries(value)) element.dataset[key] = set;
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

/** An HTML element. Texts become text nodes: nothing that came from outside is ever read as markup. */
export const h = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);

/** An SVG element. */
export const s = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

export const byId = (id) => document.getElementById(id);

/** Replaces what is in `element`; the focus stays on the control of the same name. */
export function show(element, ...children) {
  const name = element.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  element.removeAttribute('aria-busy');
  if (name) element.querySelector(`[data-focus="${CSS.escape(name)}"]`)?.focus({ preventScroll: true });
}

/** Runs `job` when called, yet never twice at once nor more than once in `pauseMs`: a flood of news is one look. */
export function gently(job, pauseMs = 1000) {
  let running = false;
  let wanted = false;
  return async function ask() {
    wanted = true;
    if (running) return;
    running = true;
    while (wanted) {
      wanted = false;
      await job();
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
    running = false;
  };
}

/** Writes a text where it differs, so that nothing is laid out or read aloud in vain. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const THIN = '\u202f';
const MINUS = '\u2212';
const formats = new Map();

/** A number with thin groups: `number(19961)` is 19 961. */
export function number(value, digits = 0, digitsMin = digits) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  const name = `${digits}/${digitsMin}`;
  if (!formats.has(name)) {
    const options = { maximumFractionDigits: digits, minimumFractionDigits: digitsMin };
    formats.set(name, new Intl.NumberFormat('en', options));
  }
  return formats.get(name).format(value).replaceAll(',', THIN).replace('-', MINUS).replace(/^−(0(\.0+)?)$/, '$1');
}

/** As many digits as say something. */
export const brief = (value) => number(value, Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2, 0);

/** With a sign, always. */
export const signed = (value, digits) => (value > 0 && !/^0(\.0+)?$/.test(number(value, digits)) ? '+' : '') + number(value, digits);

export const percent = (share, digits = 1) => number(share * 100, digits) + THIN + '%';

export const rate = (value) => (value === null || value === undefined ? '–' : number(value, value === 0 || value >= 100 ? 0 : 1));

export function bytes(count) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let at = 0;
  for (; count >= 1000 && at < units.length - 1; at++) count /= 1000;
  return number(count, at && count < 100 ? 1 : 0) + THIN + units[at];
}

export const plural = (count, one, many = one + 's') => `${number(count)} ${count === 1 ? one : many}`;

/** A time as clocks here show it; UTC on pointing at it. */
export function time(iso) {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return h('span', {}, String(iso));
  const today = at.toDateString() === new Date().toDateString();
  const year = at.getFullYear() === new Date().getFullYear() ? undefined : 'numeric';
  const clock = at.toLocaleTimeString(undefined, { hour: 'numeric', minute: '2-digit', second: today ? '2-digit' : undefined });
  const day = at.toLocaleDateString(undefined, { day: 'numeric', month: 'short', year });
  const utc = at.toISOString().replace('T', ' ').replace(/\.\d+Z/, '') + ' UTC';
  return h('time', { datetime: at.toISOString(), title: utc }, today ? clock : `${day}, ${clock}`);
}

export const clock = (date) => date.toLocaleTimeString(undefined, { hour: 'numeric', minute: '2-digit', second: '2-digit' });

const FIELDS = {
  ride_id: 'ride id', statustime: 'time', healthpoints: 'health points', magicpoints: 'magic points',
  fieldservice: 'label', json: 'JSON',
};
const REASONS = {
  duplicate_ride_id: 'ride id seen before', not_an_object: 'not an object', duplicate_field: 'a field given twice',
  negative_distance: 'distance below 0', invalid_json: 'broken JSON', ride_too_large: 'ride too large',
  no_station_in_reach: 'no station within reach', no_observation_on_date: 'no observation on that day',
};

/** A reason's code in words; of rejected rides, of rides without weather, of dead letters. */
export function reason(code) {
  if (REASONS[code]) return REASONS[code];
  const of = (field) => FIELDS[field] ?? field.replaceAll('_', ' ');
  const parts = /^(missing|invalid)_(.+)$/.exec(code);
  if (parts) return `${parts[1]} ${of(parts[2])}`;
  const range = /^(.+)_out_of_range$/.exec(code);
  return range ? `${of(range[1])} out of range` : code.replaceAll('_', ' ');
}

/** A command or address with a button that copies it. */
export function copyable(text, what) {
  const code = h('code', {}, text);
  const said = h('span', { class: 'visually-hidden', role: 'status' });
  const button = h('button', { type: 'button', class: 'copy', 'aria-label': `Copy ${what}`, data: { focus: `copy ${text}` } }, 'Copy');
  button.addEventListener('click', async () => {
    let copied = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Browsers keep the clipboard from pages that came without TLS from another machine.
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      copied = document.execCommand('copy');
    }
    button.textContent = copied ? 'Copied' : 'Press Ctrl+C';
    said.textContent = copied ? 'Copied' : 'Selected: press Control C to copy';
    setTimeout(() => {
      button.textContent = 'Copy';
      said.textContent = '';
    }, 2000);
  });
  return h('span', { class: 'copyable' }, code, button, said);
}

/** What stands where there is nothing to show: what it means, and the way out. */
export const empty = (title, ...way) => h('div', { class: 'empty' }, h('p', { class: 'empty-title' }, title), way);

/** Where nothing is what one hopes for. */
export const calm = (title, ...more) => h('div', { class: 'calm' }, h('p', { class: 'empty-title' }, title), more);

/** Grey lines in the place of what is on its way. */
export const skeleton = (lines, height) =>
  h('div', { class: 'skeleton', 'aria-label': 'Loading', role: 'img' }, Array.from({ length: lines }, () => h('span', { style: { height } })));
