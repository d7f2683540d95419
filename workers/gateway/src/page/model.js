// The champion: its quality, its coefficients, and former champions.

import { Problem, get, hasKey, save } from './api.js';
import { FEATURES } from './features.js';
import { byId, empty, h, number, percent, plural, show, skeleton } from './dom.js';
import { calibrationChart, oddsChart, rocChart } from './charts.js';

const listeners = new Set();
let family;
let shown;

/** Calls `listener` with the champion whenever it is fetched; with `undefined` if there is none. */
export const onChampion = (listener) => listeners.add(listener);

export function loading() {
  show(byId('model-body'), skeleton(4, '3rem'));
}

const three = (value) => number(value, 3);
const READOUTS = [
  ['ROC AUC', 'roc_auc', three, '0.5 is guessing, 1 is perfect order'],
  ['Log loss', 'log_loss', three, 'Lower is better; 0.693 is a coin toss'],
  ['Brier score', 'brier', three, 'Mean squared error of the probability; lower is better'],
  ['Accuracy', 'accuracy', percent, 'Share of correct decisions'],
  ['Precision', 'precision', percent, 'Share of service among predicted service'],
  ['Recall', 'recall', percent, 'Share of predicted service among service'],
  ['F1', 'f1', three, 'Harmonic mean of precision and recall'],
];

function readouts({ train, test }) {
  const say = (value, write) => (value === null || value === undefined ? '–' : write(value));
  return h('table', { class: 'readouts' },
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Measure'), test ? h('th', { scope: 'col' }, 'held out') : '', h('th', { scope: 'col' }, 'training'))),
    h('tbody', {}, READOUTS.map(([name, key, write, title]) => h('tr', { title }, h('th', { scope: 'row' }, name), test ? h('td', {}, say(test[key], write)) : '', h('td', {}, say(train[key], write))))));
}

function confusion(metrics) {
  const { true_negative: tn, false_positive: fp, false_negative: fn, true_positive: tp } = metrics.confusion;
  const all = tn + fp + fn + tp || 1;
  const cell = (count, kind, words) => h('td', { class: kind, style: { '--share': count / all } }, h('strong', {}, number(count)), h('small', {}, words));
  return h('table', { class: 'confusion' },
    h('caption', { class: 'visually-hidden' }, 'Decisions against labels'),
    h('thead', {}, h('tr', {}, h('td', {}), h('th', { scope: 'col' }, 'predicted none'), h('th', { scope: 'col' }, 'predicted service'))),
    h('tbody', {},
      h('tr', {}, h('th', { scope: 'row' }, 'no service'), cell(tn, 'right', 'true negatives'), cell(fp, 'wrong', 'false positives')),
      h('tr', {}, h('th', { scope: 'row' }, 'service'), cell(fn, 'wrong', 'false negatives'), cell(tp, 'right', 'true positives'))));
}

function odds(model) {
  const rows = model.coefficients.map((coefficient) => {
    const { name, meaning, step } = FEATURES[coefficient.feature] ?? { name: coefficient.feature, meaning: `each ${coefficient.unit} more`, step: 1 };
    const title = `${number(coefficient.per_unit, 6)} log-odds per ${coefficient.unit}; ${number(coefficient.standardised, 3)} per standard deviation`;
    return { name, per: meaning, title, factor: Math.exp(coefficient.per_unit * step) };
  });
  return oddsChart(rows);
}

const figure = (title, lead, ...inside) => h('section', { class: 'figure' }, h('h3', {}, title), h('p', { class: 'lead' }, lead), inside);

const wide = (made) => {
  made.classList.add('wide');
  return made;
};

const older = (what) => h('p', { class: 'missing' }, `This model was trained by a version that did not store ${what}. The next model has them.`);

function history(detail) {
  const row = (entry) => {
    const champion = entry.model_id === detail.champion.model_id;
    const here = entry.model_id === shown.model_id;
    const test = (pick) => (entry.test ? pick(entry.test) : '–');
    return h('tr', { data: { modelId: entry.model_id, here: here ? 'yes' : 'no' } },
      h('th', { scope: 'row' }, h('code', {}, entry.model_id), champion ? h('span', { class: 'mark', data: { state: 'ready' } }, 'champion') : ''),
      h('td', {}, number(entry.rides)), h('td', {}, test((t) => number(t.roc_auc, 3))), h('td', {}, test((t) => number(t.log_loss, 3))),
      h('td', {}, test((t) => number(t.brier, 3))), h('td', {}, test((t) => percent(t.accuracy))),
      h('td', {}, here ? h('span', { class: 'shown' }, 'shown') : h('button', { type: 'button', class: 'link', data: { focus: entry.model_id }, 'aria-label': `Show model ${entry.model_id}`, onclick: () => look(entry.model_id) }, 'Show')));
  };
  return h('div', { class: 'scrolls', tabindex: '0', role: 'region', 'aria-label': 'History of champions' },
    h('table', { class: 'history' },
      h('thead', {}, h('tr', {}, ['Model', 'Trained on', 'ROC AUC', 'Log loss', 'Brier', 'Accuracy', ''].map((name) => h('th', { scope: 'col' }, name || h('span', { class: 'visually-hidden' }, 'Show'))))),
      h('tbody', {}, detail.history.map(row))));
}

/** Returns a link to the report. With a key it is a button that saves it, because links cannot send the key. */
function report(model) {
  const path = `/v1/models/${encodeURIComponent(model.model)}/versions/${encodeURIComponent(model.model_id)}/report`;
  if (!hasKey()) return h('a', { href: path, target: '_blank', rel: 'noopener', id: 'report-link' }, 'Full report');
  const failed = (error) => byId('model-body').append(h('p', { class: 'bad-words', role: 'alert' }, error.message));
  return h('button', { type: 'button', class: 'link', id: 'report-link', data: { focus: 'report' }, onclick: () => save(path, `report-${model.model_id}.html`).catch(failed) }, 'Save the full report');
}

function draw() {
  const model = shown;
  const best = model.test ?? model.train;
  const c = model.counts;
  const share = (part, whole) => (whole ? percent(part / whole) : '–');
  const onWhat = model.test ? `On ${plural(c.test, 'held-out ride')} and on the training rides.` : `On the ${plural(c.train, 'training ride')}: none were held out.`;
  const left = [[c.unlabelled, 'without label'], [c.without_weather, 'without weather'], [c.duplicates, 'also in another batch']].filter(([count]) => count).map(([count, why]) => `${number(count)} ${why}`);
  show(byId('model-body'),
    model.model_id === family.champion.model_id ? '' : h('p', { class: 'banner' }, 'This is a former champion. ', h('button', { type: 'button', class: 'link', data: { focus: 'champion' }, onclick: () => look(family.champion.model_id) }, 'Back to the champion')),
    h('div', { class: 'model-head' },
      h('p', { class: 'model-id' }, h('span', {}, model.model), h('code', { id: 'champion-id' }, model.model_id)),
      h('p', {}, `Logistic regression on ${plural(c.train, 'ride')} of ${plural(model.datasets.length, 'batch', 'batches')}, ${share(c.train_service, c.train)} of which ended in a service request.`, left.length ? ` Left out: ${left.join(', ')}.` : '', ' ', report(model))),
    h('div', { class: 'figures' },
      figure('Quality', onWhat, readouts(model)),
      wide(figure('Odds', 'The factor by which a step multiplies the odds of a service request. Right of 1: more likely.', odds(model))),
      figure('ROC', 'All possible thresholds.', best.roc?.length ? rocChart(best, model.threshold) : older('ROC curves')),
      figure('Calibration', 'Dashed: perfect. Bars: number of rides.', best.calibration?.length ? calibrationChart(best) : older('calibration bins')),
      figure('Confusion matrix', `The decision is service from ${percent(model.threshold, 0)}.`, confusion(best))),
    h('h3', { class: 'history-title' }, 'Champions'),
    history(family));
}

async function look(id) {
  try {
    shown = id === family.champion.model_id ? family.champion : await get(`/v1/models/${encodeURIComponent(family.model)}/versions/${encodeURIComponent(id)}`);
    draw();
  } catch (error) {
    byId('model-body').append(h('p', { class: 'bad-words', role: 'alert' }, error.message));
  }
}

export async function refresh() {
  const place = byId('model-body');
  try {
    const { models } = await get('/v1/models');
    const known = models.find((model) => model.champion) ?? models[0];
    const detail = known && (await get(`/v1/models/${encodeURIComponent(known.model)}`));
    for (const listener of listeners) listener(detail?.champion ?? undefined);
    if (!detail?.champion && detail?.history.length) {
      show(place, empty('The champion cannot be read.', h('p', {}, 'Its alias names ', h('code', {}, detail.history[0].model_id), ', whose artefact is not in the object store. Scorers that have it in memory keep serving it; new scorers cannot.')));
      return;
    }
    if (!detail?.champion) {
      show(place, empty('There is no model yet.',
        h('p', {}, 'The trainer trains one as soon as enough rides with a label (', h('code', {}, 'fieldservice'), ') and weather are in the dataset; by default 100.'),
        h('p', {}, h('a', { href: '#batches' }, 'Upload rides'))));
      return;
    }
    // A refresh keeps a former champion on display.
    const showsFormer = shown && family && shown.model_id !== family.champion.model_id;
    family = detail;
    if (!showsFormer) shown = detail.champion;
    draw();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (!family) show(place, empty('The model cannot be shown.', h('p', {}, error.message)));
  }
}
