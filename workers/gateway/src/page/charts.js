// Small charts, each with a text alternative.

import { brief, h, number, percent, plural, s, write } from './dom.js';

/** Draws the last `windowS` seconds of a rate. */
export function sparkline(windowS) {
  const area = s('path', { class: 'area' });
  const line = s('path', { class: 'stroke' });
  const element = s('svg', { class: 'spark', viewBox: `0 0 ${windowS} 20`, preserveAspectRatio: 'none', 'aria-hidden': 'true' }, area, line);
  /** `samples`: [ms, value], oldest first. */
  function draw(samples, now) {
    const top = Math.max(1, ...samples.map(([, value]) => value));
    const points = samples.map(([at, value]) => `${(windowS - (now - at) / 1000).toFixed(1)} ${(19 - (value / top) * 17).toFixed(1)}`);
    line.setAttribute('d', points.length > 1 ? `M${points.join('L')}` : '');
    const start = points[0]?.split(' ')[0];
    area.setAttribute('d', points.length > 1 ? `M${start} 20L${points.join('L')}L${windowS} 20z` : '');
  }
  return { element, draw };
}

/** Draws parts of a whole as one bar; `parts`: [{ name, count, kind }]. */
export function stackedBar(parts, label) {
  const whole = parts.reduce((sum, part) => sum + part.count, 0) || 1;
  const shown = parts.filter((part) => part.count > 0);
  return h('div', { class: 'stacked', role: 'img', 'aria-label': label },
    shown.map((part) => h('span', { class: `part ${part.kind}`, title: `${part.name}: ${number(part.count)} (${percent(part.count / whole)})`, style: { 'flex-grow': part.count / whole } })));
}

const SIDE = 300;
const LEFT = 44;
const BOTTOM = 40;
const TOP = 8;
const x = (share) => LEFT + share * SIDE;
const y = (share) => TOP + (1 - share) * SIDE;

function square(name, xTitle, yTitle, ...inside) {
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  return s('svg', { class: 'square', viewBox: `0 0 ${LEFT + SIDE + 12} ${TOP + SIDE + BOTTOM}`, role: 'img', 'aria-label': name },
    ticks.map((tick) => [
      s('path', { class: 'grid', d: `M${x(tick)} ${y(0)}V${y(1)}M${x(0)} ${y(tick)}H${x(1)}` }),
      s('text', { x: x(tick), y: y(0) + 16, 'text-anchor': 'middle' }, number(tick * 100)),
      s('text', { x: x(0) - 7, y: y(tick) + 4, 'text-anchor': 'end' }, number(tick * 100)),
    ]),
    s('path', { class: 'diagonal', d: `M${x(0)} ${y(0)}L${x(1)} ${y(1)}` }),
    s('text', { class: 'axis', x: x(0.5), y: TOP + SIDE + 36, 'text-anchor': 'middle' }, xTitle),
    s('text', { class: 'axis', x: -y(0.5), y: 12, 'text-anchor': 'middle', transform: 'rotate(-90)' }, yTitle),
    inside);
}

/**
 * Makes a chart readable point by point, with the pointer or the arrow keys; the text goes to `reading`.
 * `points`: [{ x, y, words }] in shares.
 */
function readable(svg, points, reading, start) {
  const mark = s('circle', { class: 'mark', r: 5, cx: -20, cy: -20 });
  svg.append(mark);
  svg.setAttribute('tabindex', '0');
  svg.setAttribute('role', 'slider');
  svg.setAttribute('aria-orientation', 'horizontal');
  svg.setAttribute('aria-valuemin', '1');
  svg.setAttribute('aria-valuemax', String(points.length));
  let at = start;
  function go(to) {
    at = Math.max(0, Math.min(points.length - 1, to));
    mark.setAttribute('cx', x(points[at].x));
    mark.setAttribute('cy', y(points[at].y));
    svg.setAttribute('aria-valuenow', String(at + 1));
    svg.setAttribute('aria-valuetext', points[at].words);
    write(reading, points[at].words);
  }
  svg.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
    const to = event.key === 'Home' ? 0 : event.key === 'End' ? points.length - 1 : step && at + step;
    if (to === undefined) return;
    event.preventDefault();
    go(to);
  });
  svg.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect();
    const scale = (LEFT + SIDE + 12) / box.width;
    const [px, py] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const far = (point) => (x(point.x) - px) ** 2 + (y(point.y) - py) ** 2;
    go(points.reduce((best, point, i) => (far(point) < far(points[best]) ? i : best), 0));
  });
  svg.addEventListener('pointerleave', () => go(start));
  go(start);
}

/** Draws the ROC curve; `threshold` is that of the model. */
export function rocChart(metrics, threshold) {
  const points = [...metrics.roc].sort((a, b) => a.false_positive_rate - b.false_positive_rate || a.true_positive_rate - b.true_positive_rate);
  const way = points.map((point) => `${x(point.false_positive_rate).toFixed(1)} ${y(point.true_positive_rate).toFixed(1)}`).join('L');
  const { true_positive: tp, false_positive: fp, true_negative: tn, false_negative: fn } = metrics.confusion;
  const here = [fp / (fp + tn || 1), tp / (tp + fn || 1)];
  const chart = square(`ROC curve, area ${number(metrics.roc_auc, 3)}`, 'false positive rate, %', 'true positive rate, %',
    s('path', { class: 'area', d: `M${x(0)} ${y(0)}L${way}L${x(1)} ${y(0)}z` }),
    s('path', { class: 'stroke', d: `M${x(0)} ${y(0)}L${way}L${x(1)} ${y(1)}` }),
    s('circle', { class: 'threshold', cx: x(here[0]), cy: y(here[1]), r: 5 }),
    s('text', { class: 'note', x: x(here[0]) + 11, y: y(here[1]) + 14 }, `threshold ${number(threshold, 2, 1)}`));
  const reading = h('p', { class: 'reading' });
  const words = (point) => `Threshold ${percent(point.threshold)}: true positive rate ${percent(point.true_positive_rate)}, false positive rate ${percent(point.false_positive_rate)}.`;
  const near = points.reduce((best, point, i) => (Math.abs(point.threshold - threshold) < Math.abs(points[best].threshold - threshold) ? i : best), 0);
  readable(chart, points.map((point) => ({ x: point.false_positive_rate, y: point.true_positive_rate, words: words(point) })), reading, near);
  return [chart, reading];
}

/** Draws the share of service against the predicted probability, by bins of the prediction. */
export function calibrationChart(metrics) {
  const bins = metrics.calibration.filter((bin) => bin.rides > 0);
  const most = Math.max(1, ...bins.map((bin) => bin.rides));
  const chart = square('Calibration: share of service against predicted probability', 'predicted, %', 'observed, %',
    bins.map((bin) => s('rect', { class: 'count', x: x(bin.from) + 1, y: y(0) - (bin.rides / most) * 56, width: Math.max(1, (bin.to - bin.from) * SIDE - 2), height: (bin.rides / most) * 56 })),
    s('path', { class: 'stroke', d: `M${bins.map((bin) => `${x(bin.mean_probability).toFixed(1)} ${y(bin.service_share).toFixed(1)}`).join('L')}` }),
    bins.map((bin) => s('circle', { class: 'dot', cx: x(bin.mean_probability), cy: y(bin.service_share), r: 2.5 + 4 * Math.sqrt(bin.rides / most) })));
  const reading = h('p', { class: 'reading' });
  const words = (bin) => `Of ${plural(bin.rides, 'ride')} predicted at ${percent(bin.mean_probability)}, ${percent(bin.service_share)} had a service request.`;
  readable(chart, bins.map((bin) => ({ x: bin.mean_probability, y: bin.service_share, words: words(bin) })), reading, bins.findIndex((bin) => bin.rides === most));
  return [chart, reading];
}

/** Returns the ticks of a scale that contains `factors` and 1. */
function factorScale(factors) {
  const most = Math.max(1.25, ...factors.filter(Number.isFinite).flatMap((factor) => [factor, 1 / factor])) * 1.12;
  const half = Math.log(Math.min(most, 1e6));
  const place = (factor) => Math.max(0, Math.min(100, 50 + (Math.log(factor) / half) * 50));
  const steps = [1.1, 1.25, 1.5, 2, 3, 5, 10, 30, 100, 1000, 1e5].filter((step) => Math.log(step) <= half * 0.96);
  const shown = steps.slice(-2);
  return { place, ticks: [...shown.map((step) => 1 / step).reverse(), 1, ...shown] };
}

const at = (percentage) => ({ left: `${percentage.toFixed(2)}%` });

/** Draws dots on a logarithmic scale of factors; `rows`: [{ name, per, factor, title }]. */
export function oddsChart(rows) {
  const { place, ticks } = factorScale(rows.map((row) => row.factor));
  const track = (inside) => h('span', { class: 'track' }, ticks.map((tick) => h('span', { class: tick === 1 ? 'tick one' : 'tick', style: at(place(tick)) })), inside);
  return h('table', { class: 'odds' },
    h('caption', { class: 'visually-hidden' }, 'The factor by which each feature multiplies the odds of a service request'),
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Feature'),
      h('th', { scope: 'col' }, h('span', { class: 'visually-hidden' }, 'Odds on a logarithmic scale'),
        h('span', { class: 'scale', 'aria-hidden': 'true' }, ticks.map((tick) => h('span', { style: at(place(tick)) }, tick < 1 ? `÷${brief(1 / tick)}` : tick === 1 ? '1' : `×${brief(tick)}`)))),
      h('th', { scope: 'col', class: 'value' }, 'Odds'))),
    h('tbody', {}, rows.map((row) => {
      const [from, to] = [Math.min(50, place(row.factor)), Math.max(50, place(row.factor))];
      return h('tr', { title: row.title },
        h('th', { scope: 'row' }, row.name, h('small', {}, row.per)),
        h('td', { 'aria-hidden': 'true' }, track([h('span', { class: 'reach', style: { left: `${from}%`, width: `${to - from}%` } }), h('span', { class: 'dot', style: at(place(row.factor)) })])),
        h('td', { class: 'value' }, `× ${number(row.factor, row.factor >= 100 ? 0 : 3)}`));
    })));
}

/** Draws bars to either side of 0; `rows`: [{ name, value, words, logOdds, outside, title }]. */
export function contributionsChart(rows) {
  const most = Math.max(0.5, ...rows.map((row) => Math.abs(row.logOdds)));
  return h('table', { class: 'contributions' },
    h('caption', { class: 'visually-hidden' }, 'What each feature adds to the log-odds of service, compared with an average ride'),
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'This ride'),
      h('th', { scope: 'col', 'aria-hidden': 'true' }, h('span', { class: 'sides' }, h('span', {}, '← less', h('span', { class: 'long' }, ' likely')), h('span', {}, 'more', h('span', { class: 'long' }, ' likely'), ' →'))),
      h('th', { scope: 'col', class: 'value' }, h('abbr', { title: 'Added to the log-odds of service, compared with an average ride' }, 'log-odds')))),
    h('tbody', {}, rows.map((row) => {
      const width = (Math.abs(row.logOdds) / most) * 50;
      const left = row.logOdds < 0 ? 50 - width : 50;
      return h('tr', { title: row.title, data: { feature: row.feature } },
        h('th', { scope: 'row' }, row.name, h('small', {}, row.value, row.outside ? h('span', { class: 'outside' }, ' outside training') : '')),
        h('td', { 'aria-hidden': 'true' }, h('span', { class: 'track' }, h('span', { class: 'tick one', style: at(50) }), h('span', { class: row.logOdds < 0 ? 'bar less' : 'bar more', style: { left: `${left}%`, width: `${width}%` } }))),
        h('td', { class: 'value' }, row.words));
    })));
}
