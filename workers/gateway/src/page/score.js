// Score a ride: a form that scores after every change.

import { Problem, post } from './api.js';
import { byId, empty, h, number, percent, show, signed, write } from './dom.js';
import { FEATURES } from './features.js';
import { contributionsChart } from './charts.js';

const PAUSE_MS = 300;
const RETRY_S_MAX = 30;

const TEMPERATURES = {
  celsius: { name: '°C', from: (tenths) => tenths / 10, to: (value) => value * 10, digits: 1 },
  fahrenheit: { name: '°F', from: (tenths) => tenths * 0.18 + 32, to: (value) => (value - 32) / 0.18, digits: 1 },
  celsius_tenths: { name: 'tenths of °C', from: (tenths) => tenths, to: (value) => value, digits: 0 },
};
const PRECIPITATIONS = {
  millimetre: { name: 'mm', from: (tenths) => tenths / 10, to: (value) => value * 10, digits: 1 },
  inch: { name: 'inches', from: (tenths) => tenths / 254, to: (value) => value * 254, digits: 2 },
  millimetre_tenths: { name: 'tenths of mm', from: (tenths) => tenths, to: (value) => value, digits: 0 },
};
const PLACES = [
  ['Central Park, New York', 40.7829, -73.9654], ['Kennedy Airport, New York', 40.6413, -73.7781], ['Boston Common', 42.355, -71.0656],
  ['Capitol Hill, Seattle', 47.6205, -122.3212], ['Golden Gate Park, San Francisco', 37.7694, -122.4862], ['Hyde Park, London', 51.5073, -0.1657],
];
/** Why the global model scored instead of the breed model. */
const FALLBACKS = { no_breed_model: 'the release has no model of the breed', loading: 'the breed model is still being read', unavailable: 'the breed model cannot be read now' };
/** Names of the forecast services. */
const SOURCES = { nws: 'the US National Weather Service', 'open-meteo': 'Open-Meteo.com (CC BY 4.0)' };
/** Inputs that a look-up of the weather needs. A feature may be unknown: the answer says what was assumed. */
const LOOK_UP = ['statustime', 'latitude', 'longitude'];
/** Inputs by the field name of the API. */
const INPUTS = {
  'temperature.min': 'tmin', 'temperature.max': 'tmax', 'temperature.value': 'tavg', temperature: 'tmin', 'precipitation.amount': 'prcp', precipitation: 'prcp',
};

let champion;
let units = { temperature: 'celsius', precipitation: 'millimetre' };
let looksUp = false;
let timer;
let inFlight;
let waiting;
let failures = 0;

const value = (name) => byId(`score-${name}`).value.trim();
const pick = (feature) => (feature === 'prcp' ? PRECIPITATIONS[units.precipitation] : TEMPERATURES[units.temperature]);
const isWeather = (feature) => ['tmin', 'tmax', 'tavg', 'prcp'].includes(feature);

/** Formats a feature's value in the unit of the form. */
function worded(feature, raw, unit) {
  if (isWeather(feature)) return `${number(pick(feature).from(raw), pick(feature).digits, 0)} ${pick(feature).name}`;
  return `${number(raw, 1, 0)} ${unit}${Math.abs(raw) === 1 ? '' : 's'}`;
}

function field(name, label, start, more = {}) {
  const id = `score-${name}`;
  const input = h('input', { id, name, type: 'number', step: more.type ? undefined : 'any', inputmode: 'decimal', value: start, autocomplete: 'off', 'aria-describedby': `${id}-hint ${id}-error`, ...more });
  return h('div', { class: 'field', data: { field: name } },
    h('label', { for: id }, label), input,
    h('p', { class: 'hint', id: `${id}-hint` }), h('p', { class: 'error', id: `${id}-error`, hidden: true }));
}

function unit(kind, table, label) {
  const select = h('select', { id: `score-${kind}-unit`, 'aria-label': label }, Object.entries(table).map(([code, { name }]) => h('option', { value: code }, name)));
  select.addEventListener('change', () => {
    for (const name of kind === 'temperature' ? ['tmin', 'tmax', 'tavg'] : ['prcp']) {
      const input = byId(`score-${name}`);
      if (input.value.trim() === '') continue;
      const converted = table[select.value].from(table[units[kind]].to(Number(input.value)));
      input.value = String(Number(converted.toFixed(table[select.value].digits + 1)));
    }
    units = { ...units, [kind]: select.value };
    hints();
    soon();
  });
  return h('div', { class: 'field unit' }, h('label', { for: select.id }, label), select);
}

/** A button that enters the current time. */
function now() {
  const button = h('button', { type: 'button', id: 'score-time-now' }, 'Now');
  button.addEventListener('click', () => {
    byId('score-statustime').value = new Date().toISOString().slice(0, 19);
    soon();
  });
  return h('div', { class: 'field' }, button);
}

function form() {
  const way = (code, label, on) => {
    const input = h('input', { type: 'radio', name: 'weather', value: code, checked: on });
    input.addEventListener('change', () => {
      looksUp = code === 'look-up';
      byId('by-hand').hidden = looksUp;
      byId('looked-up').hidden = !looksUp;
      clearErrors();
      soon();
    });
    return h('label', {}, input, h('span', {}, label));
  };
  const places = h('select', { id: 'score-place' }, h('option', { value: '' }, 'choose, or enter below'), PLACES.map(([name], i) => h('option', { value: i }, name)));
  places.addEventListener('change', () => {
    const place = PLACES[Number(places.value)];
    if (places.value === '' || !place) return;
    byId('score-latitude').value = place[1];
    byId('score-longitude').value = place[2];
    soon();
  });
  const element = h('form', { id: 'score-form', novalidate: true, 'aria-labelledby': 'score-title' },
    h('fieldset', {}, h('legend', {}, 'The ride'),
      h('div', { class: 'fields' }, field('distance', 'Distance, miles', 30.5), field('healthpoints', 'Health points', 330), field('magicpoints', 'Magic points burnt', 280),
        field('breed', 'Breed, if known', '', { type: 'text', inputmode: 'text', maxlength: 128 }))),
    h('fieldset', {}, h('legend', {}, 'The weather of that day'),
      h('div', { class: 'ways' }, way('by-hand', 'I know it', true), way('look-up', 'Look it up', false)),
      h('div', { id: 'by-hand' },
        h('div', { class: 'fields' }, field('tmin', 'Lowest', 6), field('tmax', 'Highest', 11), field('tavg', 'Mean, if not both', ''),
          unit('temperature', TEMPERATURES, 'Temperature in'), field('prcp', 'Precipitation', 20), unit('precipitation', PRECIPITATIONS, 'Precipitation in'))),
      h('div', { id: 'looked-up', hidden: true },
        h('div', { class: 'fields two' },
          h('div', { class: 'field' }, h('label', { for: 'score-place' }, 'A place'), places),
          field('statustime', 'End of the ride, UTC', '2018-04-25T17:03:05', { type: 'datetime-local', step: 1, inputmode: undefined }),
          field('latitude', 'Latitude', 40.7829), field('longitude', 'Longitude', -73.9654), now()))),
    h('p', { class: 'actions' }, h('button', { type: 'submit', class: 'primary', id: 'score-now' }, 'Score'), h('span', { class: 'peek', id: 'score-peek', 'aria-hidden': 'true' })));
  element.addEventListener('input', (event) => {
    if (['number', 'text', 'datetime-local'].includes(event.target.type)) {
      hints();
      soon();
    }
  });
  element.addEventListener('submit', (event) => {
    event.preventDefault();
    run();
  });
  return element;
}

/** Shows the training range of each field, in the unit of the field. */
function hints() {
  for (const coefficient of champion?.coefficients ?? []) {
    const { feature, min, max } = coefficient;
    const hint = byId(`score-${feature}-hint`);
    if (!hint) continue;
    const [low, high] = isWeather(feature) ? [min, max].map((edge) => number(pick(feature).from(edge), pick(feature).digits, 0)) : [min, max].map((edge) => number(edge, 1, 0));
    const entered = value(feature) === '' ? NaN : isWeather(feature) ? pick(feature).to(Number(value(feature))) : Number(value(feature));
    // The form has fewer digits than the model.
    const slack = (max - min) * 1e-3;
    const outside = entered < min - slack || entered > max + slack;
    write(hint, `${outside ? 'Outside the training range: ' : 'trained on '}${low} to ${high}`);
    hint.dataset.outside = outside ? 'yes' : 'no';
  }
}

function ride() {
  const asked = {};
  const put = (into, key, name) => {
    const text = value(name);
    if (text !== '') into[key] = Number(text);
  };
  for (const name of ['distance', 'healthpoints', 'magicpoints']) put(asked, name, name);
  if (value('breed')) asked.breed = value('breed');
  if (looksUp) {
    put(asked, 'latitude', 'latitude');
    put(asked, 'longitude', 'longitude');
    const at = value('statustime').replace('T', ' ');
    if (at) asked.statustime = at.length === 16 ? `${at}:00` : at;
    return asked;
  }
  asked.temperature = { unit: units.temperature };
  put(asked.temperature, 'min', 'tmin');
  put(asked.temperature, 'max', 'tmax');
  put(asked.temperature, 'value', 'tavg');
  asked.precipitation = { unit: units.precipitation };
  put(asked.precipitation, 'amount', 'prcp');
  return asked;
}

function clearErrors() {
  for (const error of document.querySelectorAll('#score-form .error')) error.hidden = true;
  for (const input of document.querySelectorAll('#score-form [aria-invalid]')) input.removeAttribute('aria-invalid');
}

function fieldError(name, words) {
  const error = byId(`score-${name}-error`);
  if (!error || byId(`score-${name}`).closest('[hidden]')) return false;
  error.hidden = false;
  write(error, words);
  byId(`score-${name}`).setAttribute('aria-invalid', 'true');
  return true;
}

const soon = () => {
  clearTimeout(timer);
  clearTimeout(waiting);
  failures = 0;
  timer = setTimeout(run, PAUSE_MS);
  byId('score-result').dataset.stale = 'yes';
};

/** Returns whether every field has a value that can be read, or none where it may be unknown; marks the others. The gateway checks the values. */
function filledIn() {
  const inputs = [...document.querySelectorAll('#score-form input:not([type="radio"])')].filter((input) => !input.closest('[hidden]'));
  const invalid = inputs.filter((input) => input.validity.badInput || (input.value.trim() === '' && LOOK_UP.includes(input.name)));
  for (const input of invalid) {
    const what = input.type === 'number' ? 'a number, as in 4.8' : 'a date and a time';
    fieldError(input.name, input.validity.badInput ? `Expected ${what}.` : `Missing: expected ${what}.`);
  }
  return !invalid.length;
}

async function run() {
  clearTimeout(timer);
  clearTimeout(waiting);
  waiting = undefined;
  inFlight?.abort();
  clearErrors();
  if (!filledIn()) {
    show(byId('score-peek'), 'See the field marked above.');
    announce('Not scored: a field is missing.');
    return;
  }
  const mine = (inFlight = new AbortController());
  const result = byId('score-result');
  result.setAttribute('aria-busy', 'true');
  try {
    const answer = await post('/v1/score', ride(), { signal: mine.signal });
    if (mine.signal.aborted) return;
    failures = 0;
    drawScore(answer);
  } catch (error) {
    if (error.name === 'AbortError') return;
    if (!(error instanceof Problem)) throw error;
    if (!mine.signal.aborted) drawProblem(error);
  } finally {
    if (inFlight === mine) {
      result.removeAttribute('aria-busy');
      result.dataset.stale = 'no';
    }
  }
}

function drawProblem(problem) {
  const elsewhere = [];
  for (const error of problem.errors) {
    const path = String(error.field ?? '').replace(/^[/$.]+/, '').replace(/^(rides?)?\[?\d*\]?[./]/, '').replaceAll('/', '.');
    const name = INPUTS[path] ?? path;
    const missing = /missing/.test(problem.type) && (error.value === null || error.value === undefined);
    const words = /invalid-field/.test(problem.type) ? error.expected : `${missing ? 'Missing: expected' : 'Expected'} ${error.expected}.`;
    if (!fieldError(name, words)) elsewhere.push(`${path || 'the ride'}: ${words}`);
  }
  const mayPass = problem.retryAfterS && (problem.status === 503 || problem.status === 429 || problem.status === 504);
  // The pause doubles with each failure.
  const retryS = mayPass ? Math.min(Math.max(problem.retryAfterS, 2 ** ++failures), RETRY_S_MAX) : undefined;
  const noModel = /no-model/.test(problem.type);
  show(byId('score-result'), empty(problem.title + (/[.!?]$/.test(problem.title) ? '' : '.'),
    h('p', {}, problem.message),
    elsewhere.map((words) => h('p', {}, words)),
    noModel ? h('p', {}, h('a', { href: '#batches' }, 'Upload rides')) : '',
    retryS ? h('p', { class: 'note' }, `Retrying in ${retryS} s, or as soon as a field changes.`) : ''));
  show(byId('score-peek'), elsewhere.length < problem.errors.length ? 'See the field marked above.' : problem.title);
  announce(`${problem.title}. ${problem.message}`);
  // A hidden page does not retry.
  if (retryS) waiting = setTimeout(() => document.hidden || run(), retryS * 1000);
}

const announce = (words) => write(byId('score-said'), words);

/** Shows the weather that was looked up, of which kind it is, and where it is from. */
function looked(weather) {
  const t = (tenths) => worded('tmin', tenths);
  const away = `, ${number(weather.station_km, 1)} km away`;
  const origins = {
    observed: ['Observed at station ', h('code', {}, weather.groundstation), away],
    forecast: [`Forecast by ${SOURCES[weather.source] ?? weather.source}, grid cell `, h('code', {}, weather.cell), weather.issued ? `, issued ${weather.issued.slice(0, 16)} UTC` : ''],
    climatology: ['Usual for the season at station ', h('code', {}, weather.groundstation), `${away} (climatology of ${weather.years} years)`],
  };
  return h('p', { class: 'looked', id: 'looked', data: { kind: weather.kind } }, origins[weather.kind] ?? weather.kind, `: ${t(weather.tmin)} to ${t(weather.tmax)}, ${worded('prcp', weather.prcp)} of precipitation.`);
}

function drawScore(answer) {
  const { probability, threshold, service, baseline, contributions = [], assumed = [], interval, warnings = [] } = answer;
  const outside = contributions.filter((part) => part.outside_training);
  const name = (feature) => FEATURES[feature]?.name ?? feature;
  const range = (feature) => {
    const known = champion?.model_id === answer.model_id && champion.coefficients.find((coefficient) => coefficient.feature === feature);
    return known ? ` (trained on ${worded(feature, known.min, known.unit)} to ${worded(feature, known.max, known.unit)})` : '';
  };
  const isAssumed = (feature) => assumed.some((part) => part.feature === feature);
  const rows = contributions.map((part) => ({
    feature: part.feature, name: name(part.feature), value: `${isAssumed(part.feature) ? 'assumed ' : ''}${worded(part.feature, part.value, part.unit)}`, logOdds: part.log_odds, outside: part.outside_training,
    words: signed(part.log_odds, 2), title: `Multiplies the odds by ${number(Math.exp(part.log_odds), 3)}, compared with an average ride`,
  }));
  show(byId('score-result'),
    h('p', { class: 'probability', id: 'probability', data: { value: probability, service: service ? 'yes' : 'no' } }, number(probability * 100, 1), h('span', {}, '%')),
    h('div', { class: 'gauge', 'aria-hidden': 'true' },
      h('span', { class: 'level', style: { width: `${probability * 100}%` } }),
      interval ? h('span', { class: 'interval', style: { left: `${interval.low * 100}%`, width: `${(interval.high - interval.low) * 100}%` } }) : '',
      h('span', { class: 'at threshold', style: { left: `${threshold * 100}%` } }, h('span', {}, `threshold ${number(threshold * 100, 1, 0)}`)),
      baseline ? h('span', { class: 'at average', style: { left: `${baseline.probability * 100}%` } }, h('span', {}, `average ride ${number(baseline.probability * 100, 0)}`)) : ''),
    h('p', { class: 'decision', id: 'decision' }, h('strong', {}, service ? 'Expect a service request:' : 'Expect no service request:'), service ? ` at or above the threshold of ${percent(threshold, 0)}.` : ` below the threshold of ${percent(threshold, 0)}.`),
    interval ? h('p', { class: 'note', id: 'interval' }, `With all features, it would be from ${percent(interval.low)} to ${percent(interval.high)} in 90 % of cases. Assumed: ${assumed.map((part) => `${name(part.feature).toLowerCase()} ${worded(part.feature, part.value, part.unit)}`).join(', ')}.`) : '',
    outside.length ? h('p', { class: 'caution', id: 'outside' }, h('strong', {}, 'Outside the training range: '), outside.map((part) => `${name(part.feature).toLowerCase()}${range(part.feature)}`).join('; '), '. The score is an extrapolation.') : '',
    warnings.length ? h('p', { class: 'caution', id: 'warnings' }, h('strong', {}, 'Caution: '), `${warnings.join('; ')}.`) : '',
    answer.weather ? looked(answer.weather) : '',
    rows.length ? contributionsChart(rows) : '',
    h('p', { class: 'note by' }, `By model ${answer.model}, `, h('code', { id: 'scored-by' }, answer.model_id), answer.fallback ? `, the global model: ${FALLBACKS[answer.fallback] ?? answer.fallback}.` : ''));
  show(byId('score-peek'), h('strong', {}, percent(probability)), service ? 'a service request' : 'no service request');
  announce(`${percent(probability)} probability of a service request${service ? ', at or above the threshold' : ', below the threshold'}.${outside.length ? ' Outside the training range.' : ''}`);
}

/** Scores again if the last attempt failed and waits for its retry. */
export function again() {
  failures = 0;
  if (waiting !== undefined) run();
}

/** Builds the form. It scores as soon as there is a champion. */
export function build() {
  show(byId('score-body'), form(),
    h('div', { class: 'result-frame' }, h('p', { class: 'visually-hidden', id: 'score-said', role: 'status', 'aria-live': 'polite' }),
      h('div', { id: 'score-result', data: { stale: 'no' } }, empty('No score yet.', h('p', {}, 'It appears as soon as there is a model.')))));
}

/** Scores with a new champion, or shows that there is none. */
export function championIs(model) {
  const changed = champion?.model_id !== model?.model_id;
  champion = model;
  hints();
  if (model && changed) run();
  if (!model) byId('score-peek').replaceChildren();
  if (!model) show(byId('score-result'), empty('There is no model yet.', h('p', {}, 'Rides can be scored after a model is trained.'), h('p', {}, h('a', { href: '#batches' }, 'Upload rides'))));
}
