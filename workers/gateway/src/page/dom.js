// Elements, and the formats of numbers, times and reasons.

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

/** Creates an HTML element. Texts become text nodes: data is never parsed as markup. */
export const h = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);

/** Creates an SVG element. */
export const s = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

export const byId = (id) => document.getElementById(id);

/** Replaces the content of `element`; the focus stays on the control of the same name. */
export function show(element, ...children) {
  const name = element.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  element.removeAttribute('aria-busy');
  if (name) element.querySelector(`[data-focus="${CSS.escape(name)}"]`)?.focus({ preventScroll: true });
}

/** Returns a throttled `job`: it never runs concurrently, nor more than once per `pauseMs`. */
export function throttled(job, pauseMs = 1000) {
  let running = false;
  let requested = false;
  return async function ask() {
    requested = true;
    if (running) return;
    running = true;
    while (requested) {
      requested = false;
      await job();
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
    running = false;
  };
}

/** Writes a text if it differs, to avoid needless layout and screen-reader output. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const THIN = '\u202f';
const MINUS = '\u2212';
const formats = new Map();

/** Formats a number with thin spaces between groups: `number(19961)` is 19 961. */
export function number(value, digits = 0, digitsMin = digits) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  const name = `${digits}/${digitsMin}`;
  if (!formats.has(name)) {
    const options = { maximumFractionDigits: digits, minimumFractionDigits: digitsMin };
    formats.set(name, new Intl.NumberFormat('en', options));
  }
  return formats.get(name).format(value).replaceAll(',', THIN).replace('-', MINUS).replace(/^−(0(\.0+)?)$/, '$1');
}

/** Formats a number with about three significant digits. */
export const brief = (value) => number(value, Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2, 0);

/** Formats a number with its sign. */
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

/** Formats a time in the local time zone, with UTC in the tooltip. */
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
  duplicate_ride_id: 'duplicate ride id', not_an_object: 'not an object', duplicate_field: 'duplicate field',
  negative_distance: 'distance below 0', invalid_json: 'invalid JSON', ride_too_large: 'ride too large',
  no_station_in_reach: 'no station within reach', no_observation_on_date: 'no observation on that day',
  not_yet_published: 'weather not published yet',
};

/** Describes the reason code of a rejected ride, a ride without weather or a dead letter. */
export function reason(code) {
  if (REASONS[code]) return REASONS[code];
  const of = (field) => FIELDS[field] ?? field.replaceAll('_', ' ');
  const parts = /^(missing|invalid)_(.+)$/.exec(code);
  if (parts) return `${parts[1]} ${of(parts[2])}`;
  const range = /^(.+)_out_of_range$/.exec(code);
  return range ? `${of(range[1])} out of range` : code.replaceAll('_', ' ');
}

/** Returns a command or address with a button that copies it. */
export function copyable(text, what) {
  const code = h('code', {}, text);
  const status = h('span', { class: 'visually-hidden', role: 'status' });
  const button = h('button', { type: 'button', class: 'copy', 'aria-label': `Copy ${what}`, data: { focus: `copy ${text}` } }, 'Copy');
  button.addEventListener('click', async () => {
    let copied = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Browsers deny the clipboard to pages loaded without TLS from another machine.
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      copied = document.execCommand('copy');
    }
    button.textContent = copied ? 'Copied' : 'Press Ctrl+C';
    status.textContent = copied ? 'Copied' : 'Selected: press Control C to copy';
    setTimeout(() => {
      button.textContent = 'Copy';
      status.textContent = '';
    }, 2000);
  });
  return h('span', { class: 'copyable' }, code, button, status);
}

/** Returns a placeholder for missing content: what it means, and what to do. */
export const empty = (title, ...way) => h('div', { class: 'empty' }, h('p', { class: 'empty-title' }, title), way);

/** Returns a placeholder for content whose absence is good. */
export const calm = (title, ...more) => h('div', { class: 'calm' }, h('p', { class: 'empty-title' }, title), more);

/** Returns grey lines as a placeholder for loading content. */
export const skeleton = (lines, height) =>
  h('div', { class: 'skeleton', 'aria-label': 'Loading', role: 'img' }, Array.from({ length: lines }, () => h('span', { style: { height } })));
