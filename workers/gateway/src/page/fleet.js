// The pipeline: stages with their queues, and the messages between them.

import { byId, h, number, plural, rate, s, show, skeleton, write } from './dom.js';
import { sparkline } from './charts.js';

const WINDOW_S = 60;
/** Column and row of each stage on a wide screen, in the order of a ride's way. Unknown stages go below. */
const PLACES = {
  publisher: [1, 1], splitter: [2, 1], 'weather-fetcher': [3, 1], merger: [4, 1], trainer: [5, 1], scorer: [6, 1],
  client: ['4 / span 2', 2], 'weather-lookup': ['2 / span 2', 2],
};
/** Workers whose queue has another name. */
const WORKERS = { 'weather-lookup': 'weather-fetcher' };

const stages = new Map();
let flow = [];
let snapshot;

const figure = (name, title) => {
  const value = h('dd', {}, '–');
  return { value, row: h('div', {}, h('dt', { title }, name), value) };
};

function stage(name, takes) {
  const ready = h('strong', {}, '–');
  const rateText = h('span', {}, '–');
  const spark = sparkline(WINDOW_S);
  const warning = h('p', { class: 'stage-warning', hidden: true });
  const inFlight = figure('in flight', 'Delivered to a worker and not acknowledged yet');
  const consumers = figure('consumers', 'Workers that consume this queue');
  const retries = figure('waiting to retry', 'In the retry queues; each returns after its delay');
  const dead = figure('dead letters', 'Given up, kept with the reason');
  const title = h('h3', { id: `stage-${name}-name` }, name);
  const element = h('article', { class: 'stage', id: `stage-${name}`, 'aria-labelledby': title.id, data: { queue: name } },
    title,
    h('p', { class: 'takes' }, h('span', { class: 'visually-hidden' }, 'takes '), takes),
    h('p', { class: 'ready' }, ready, ' ready'),
    h('div', { class: 'pace' }, spark.element, h('p', { class: 'rate' }, rateText, ' / s')),
    warning,
    h('dl', {}, inFlight.row, consumers.row, retries.row, dead.row));
  const samples = [];

  function blank() {
    for (const value of [ready, rateText, inFlight.value, consumers.value, retries.value, dead.value]) write(value, '–');
    for (const { row } of [inFlight, consumers, retries, dead]) row.dataset.zero = row.dataset.warn = row.dataset.bad = 'no';
    element.dataset.alone = element.dataset.busy = 'no';
    warning.hidden = true;
  }

  function update(queue, now) {
    if (queue.rate_per_s !== null && queue.rate_per_s !== undefined) samples.push([now, queue.rate_per_s]);
    while (samples.length && now - samples[0][0] > WINDOW_S * 1000) samples.shift();
    spark.draw(samples, now);
    write(ready, number(queue.ready));
    write(rateText, rate(queue.rate_per_s));
    write(inFlight.value, number(queue.in_flight));
    write(consumers.value, number(queue.consumers));
    write(retries.value, number(queue.retries));
    if (queue.dead) {
      const link = dead.value.querySelector('a') ?? h('a', { href: '#dead-letters' });
      write(link, number(queue.dead));
      link.setAttribute('aria-label', `${plural(queue.dead, 'dead letter')} of ${name}`);
      if (!link.isConnected) dead.value.replaceChildren(link);
    } else write(dead.value, number(queue.dead));
    for (const [what, count] of [[inFlight, queue.in_flight], [retries, queue.retries], [dead, queue.dead]]) what.row.dataset.zero = count ? 'no' : 'yes';
    dead.row.dataset.bad = queue.dead ? 'yes' : 'no';
    retries.row.dataset.warn = queue.retries ? 'yes' : 'no';
    const alone = queue.consumers === 0;
    element.dataset.alone = alone ? 'yes' : 'no';
    consumers.row.dataset.warn = alone ? 'yes' : 'no';
    warning.hidden = !alone;
    const worker = WORKERS[name] ?? name;
    if (alone) write(warning, queue.ready ? `No consumer: ${plural(queue.ready, 'message')} wait for a ${worker} to start.` : `No consumer: start a ${worker}.`);
    element.dataset.busy = queue.ready ? 'yes' : 'no';
  }
  return { element, update, blank };
}

function client() {
  const line = h('p', {}, '–');
  const element = h('article', { class: 'stage outside', id: 'stage-client', 'aria-labelledby': 'stage-client-name' },
    h('h3', { id: 'stage-client-name' }, 'client'), h('p', {}, 'through this gateway'), line);
  const update = (gateway) => {
    const together = gateway.rides_per_rpc ? ` · ${rate(gateway.rides_per_rpc)} rides per message` : '';
    const late = gateway.late_answers ? ` · ${plural(gateway.late_answers, 'late answer')}` : '';
    write(line, `${rate(gateway.requests_per_s)} requests / s · ${number(gateway.in_flight)} in flight${together}${late}`);
  };
  return { element, updateGateway: update };
}

function publisher() {
  const element = h('article', { class: 'stage outside', id: 'stage-publisher', 'aria-labelledby': 'stage-publisher-name' },
    h('h3', { id: 'stage-publisher-name' }, 'publisher'), h('p', {}, h('a', { href: '#batches' }, 'upload')));
  return { element };
}

let lines;

/** Builds the stages of a topology. */
export function build(topology) {
  const order = Object.keys(PLACES);
  const rank = (name) => (order.includes(name) ? order.indexOf(name) : order.length);
  // One line between two stages, for all their messages.
  const edges = new Map();
  for (const { from, to, message } of topology.flow) {
    const edge = edges.get(`${from} ${to}`);
    if (edge) edge.message += `, ${message}`;
    else edges.set(`${from} ${to}`, { from, to, message });
  }
  flow = [...edges.values()].sort((a, b) => rank(a.from) - rank(b.from) || rank(a.to) - rank(b.to));
  const names = [...new Set(flow.flatMap((edge) => [edge.from, edge.to]))].sort((a, b) => rank(a) - rank(b));
  stages.clear();
  const outside = { publisher, client };
  for (const name of names) {
    const takes = flow.filter((edge) => edge.to === name).map((edge) => edge.message).join(', ');
    const made = outside[name]?.() ?? stage(name, takes);
    const place = PLACES[name];
    if (place) {
      made.element.style.setProperty('--column', place[0]);
      made.element.style.setProperty('--row', place[1]);
    }
    stages.set(name, made);
  }
  lines = s('svg', { class: 'lines', 'aria-hidden': 'true' });
  const words = flow.map((edge) => `${edge.from} to ${edge.to}: ${edge.message}`).join('; ');
  show(byId('flow'), h('p', { class: 'visually-hidden' }, `The flow: ${words}.`), lines, [...stages.values()].map((made) => made.element));
  new ResizeObserver(draw).observe(byId('flow'));
  if (snapshot) update(snapshot);
}

export function loading() {
  show(byId('flow'), Array.from({ length: 6 }, () => h('div', { class: 'stage' }, skeleton(5))));
}

/** Shows a snapshot of the fleet. */
export function update(next) {
  snapshot = next;
  const now = Date.now();
  const byQueue = new Map(next.queues.map((queue) => [queue.queue, queue]));
  for (const [name, made] of stages) byQueue.has(name) ? made.update?.(byQueue.get(name), now) : made.blank?.();
  stages.get('client')?.updateGateway(next.gateway);
  const note = byId('fleet-note');
  note.hidden = !next.note;
  write(note, next.note ? `– means unknown: ${next.note}.` : '');
  draw();
}

/** Marks the data as live or outdated. */
export function live(is) {
  byId('flow').dataset.live = is ? 'yes' : 'no';
  draw();
}

const R = 7;

/** Returns the path of a line from box `a` to box `b`, and the position of its label, if there is room for one. */
function way(a, b, wide, order) {
  const [ax, ay, bx, by] = [(a.left + a.right) / 2, (a.top + a.bottom) / 2, (b.left + b.right) / 2, (b.top + b.bottom) / 2];
  if (!wide) {
    const [x, next] = [a.left + 28, Math.abs(order) === 1];
    if (next) return { d: `M${x} ${order > 0 ? a.bottom : a.top}V${order > 0 ? b.top - 1 : b.bottom + 1}`, label: [x + 10, (order > 0 ? a.bottom + b.top : a.top + b.bottom) / 2 + 4, 'start'] };
    const gutter = 6;
    return { d: `M${a.left} ${ay}H${gutter + R}Q${gutter} ${ay} ${gutter} ${ay + R}V${by - R}Q${gutter} ${by} ${gutter + R} ${by}H${b.left - 1}` };
  }
  const sameRow = a.top < b.bottom && b.top < a.bottom;
  if (sameRow && order === 1 && b.left >= a.right) {
    const y = a.top + 28;
    return { d: `M${a.right} ${y}H${b.left - 1}` };
  }
  if (sameRow && b.left > a.left) {
    const y = a.top - 22;
    return { d: `M${ax} ${a.top}V${y + R}Q${ax} ${y} ${ax + R} ${y}H${bx - R}Q${bx} ${y} ${bx} ${y + R}V${b.top - 1}`, label: [(ax + bx) / 2, y - 6, 'middle'] };
  }
  if (sameRow) return { d: `M${a.left} ${ay}H${b.right + 1}` };
  return { d: `M${a.right} ${ay}H${bx - R}Q${bx} ${ay} ${bx} ${ay - R}V${b.bottom + 1}`, label: [(a.right + bx) / 2, ay - 7, 'middle'] };
}

/** Draws the lines between the stages at their current positions. */
function draw() {
  const ground = byId('flow');
  if (!lines?.isConnected || !stages.size) return;
  const origin = ground.getBoundingClientRect();
  const boxes = new Map();
  for (const [name, { element }] of stages) {
    const r = element.getBoundingClientRect();
    boxes.set(name, { left: r.left - origin.left, right: r.right - origin.left, top: r.top - origin.top, bottom: r.bottom - origin.top });
  }
  const wide = getComputedStyle(ground).getPropertyValue('--wide').trim() === '1';
  const names = [...stages.keys()];
  const paces = new Map(snapshot?.queues.map((queue) => [queue.queue, queue.rate_per_s]));
  const live = ground.dataset.live === 'yes';
  const drawn = flow.map((edge) => {
    const { d, label } = way(boxes.get(edge.from), boxes.get(edge.to), wide, names.indexOf(edge.to) - names.indexOf(edge.from));
    const moving = live && (paces.get(edge.to) ?? 0) > 0;
    return { d, label, moving, message: edge.message };
  });
  // Redrawn only after a change: otherwise the animation of a line would restart each time.
  const state = JSON.stringify([drawn, origin.width, origin.height]);
  if (lines.dataset.state === state) return;
  lines.dataset.state = state;
  lines.setAttribute('viewBox', `0 0 ${origin.width} ${origin.height}`);
  lines.setAttribute('width', origin.width);
  lines.setAttribute('height', origin.height);
  const head = (id) => s('marker', { id, viewBox: '0 0 8 8', refX: 7, refY: 4, markerWidth: 9, markerHeight: 9, markerUnits: 'userSpaceOnUse', orient: 'auto' }, s('path', { d: 'M0 .5 8 4 0 7.5z', class: id }));
  lines.replaceChildren(s('defs', {}, head('head-still'), head('head-moving')),
    ...drawn.flatMap(({ d, label, moving, message }) => [
      s('path', { d, class: moving ? 'line moving' : 'line', 'marker-end': `url(#head-${moving ? 'moving' : 'still'})` }),
      label ? s('text', { x: label[0], y: label[1], 'text-anchor': label[2] }, message) : '',
    ]));
}
