// The page: assembles its parts, updates them from the stream of events, and shows when it is not live.

import { askAgain, follow, forgetKey, get, hasKey, onKeyRequired } from './api.js';
import { byId, clock, throttled, h, write } from './dom.js';
import * as fleet from './fleet.js';
import * as batches from './batches.js';
import * as dead from './dead.js';
import * as model from './model.js';
import * as score from './score.js';

/** Up to this many changed batches are fetched one by one; with more, the list is. */
const BATCHES_ONE_BY_ONE = 3;

/** Shows or removes the banner `name`: what is wrong, and what to do. */
function banner(name, kind, ...words) {
  const old = document.querySelector(`#banners [data-name="${name}"]`);
  if (!kind) return old?.remove();
  const text = words.map((word) => (typeof word === 'string' ? word : word.textContent)).join('');
  if (old?.dataset.text === text) return undefined;
  const made = h('div', { class: `banner ${kind}`, data: { name, text } }, h('p', {}, ...words));
  if (old) old.replaceWith(made);
  else byId('banners').append(made);
  return made;
}

function state(id, key, value, words) {
  byId(`${id}-state`).dataset[key] = value;
  write(byId(`${id}-text`), words);
}

let retryNow = () => {};
let liveSince;
let lostSince;
let topologyKnown = false;
// Neither an id nor undefined: the first snapshot counts as a change.
let lastChampion = null;
let lastDead;
let lastBroker;

const button = (words, onclick) => h('button', { type: 'button', class: 'link', onclick }, words);

function brokerIs({ name, state: is, why }) {
  if (is === 'open' && lastBroker !== 'open') score.again();
  lastBroker = is;
  state('broker', 'state', is, `${name}: ${is}`);
  const because = why ? ` (${why})` : '';
  if (is === 'away') banner('broker', 'bad', h('strong', {}, 'The broker is away.'), ` ${name} does not answer${because}. Confirmed messages are kept; uploads and scores are refused until the broker is back. `, h('code', {}, 'wildrydes doctor'), ' shows more.');
  else if (is === 'blocked') banner('broker', 'warn', h('strong', {}, 'The broker accepts no messages.'), ` ${name} is blocked${because}. Uploads and scores are refused until the alarm ends; workers still handle the queues.`);
  else banner('broker');
}

function snapshot(data) {
  fleet.update(data);
  brokerIs(data.broker);
  if (data.draining) banner('draining', 'warn', h('strong', {}, 'This gateway is draining.'), ' It finishes the requests in progress and refuses new ones.');
  else banner('draining');
  const champion = data.champion?.model_id;
  if (champion !== lastChampion) {
    lastChampion = champion;
    refreshModel();
  }
  const letters = data.queues.reduce((sum, queue) => sum + (queue.dead ?? 0), 0);
  if (data.queues.length && letters !== lastDead) {
    lastDead = letters;
    refreshDead();
  }
}

const changed = new Set();
const refreshDead = throttled(dead.refresh);
const refreshModel = throttled(model.refresh);
const refreshBatches = throttled(async () => {
  const ids = [...changed];
  changed.clear();
  if (ids.length > BATCHES_ONE_BY_ONE) await batches.refresh();
  else await Promise.all(ids.map(batches.refreshOne));
});

const events = {
  fleet: snapshot,
  batch: (data) => {
    changed.add(data.batch_id);
    refreshBatches();
  },
  model: refreshModel,
  dead: refreshDead,
};

/** Fetches everything that is not streamed. */
async function everything() {
  byId('forget').hidden = !hasKey();
  const topology = topologyKnown ? undefined : get('/v1/topology').then((flow) => {
    fleet.build(flow);
    topologyKnown = true;
  });
  await Promise.allSettled([topology, batches.refresh()]);
}

function live() {
  liveSince = new Date();
  lostSince = undefined;
  banner('gateway');
  state('live', 'live', 'yes', 'live');
  document.body.dataset.live = 'yes';
  fleet.live(true);
  // Events since the last connection were lost.
  everything();
}

function lost(problem, waitMs) {
  if (liveSince) lostSince ??= new Date();
  // The next snapshot counts as a change.
  lastChampion = null;
  lastDead = undefined;
  const since = lostSince ? `not live since ${clock(lostSince)}` : 'not live';
  state('live', 'live', 'no', since);
  document.body.dataset.live = 'no';
  fleet.live(false);
  if (document.hidden) return;
  if (problem.status === 401) {
    banner('gateway', 'bad', h('strong', {}, 'An API key is needed.'), ' This gateway answers requests with a key only. ', button('Enter a key', () => {
      askAgain();
      retryNow();
    }));
  } else if (problem.status === 403) {
    banner('gateway', 'bad', h('strong', {}, 'This key lacks the scope read.'), ` ${problem.message} `, button('Use another key', () => {
      forgetKey();
      askAgain();
      retryNow();
    }));
  } else if (waitMs > 500 || !liveSince) {
    const shown = lostSince ? ` The data shown is from ${clock(lostSince)}.` : '';
    banner('gateway', 'bad', h('strong', {}, `${problem.title}.`), ` ${problem.message}${shown} `, button('Try now', () => retryNow()));
  }
}

function askForKey(wasWrong) {
  const dialog = byId('key-dialog');
  const input = byId('key');
  write(byId('key-why'), wasWrong ? 'This key is unknown. Check it for blanks and missing characters, or ask the operator of the fleet.' : 'This gateway requires an API key. Ask the operator of the fleet for one.');
  input.value = '';
  return new Promise((resolve) => {
    byId('key-later').onclick = () => dialog.close('');
    byId('key-form').onsubmit = (event) => {
      event.preventDefault();
      dialog.close(input.value.trim());
    };
    dialog.onclose = () => {
      byId('forget').hidden = !dialog.returnValue;
      resolve(dialog.returnValue || undefined);
    };
    dialog.returnValue = '';
    dialog.showModal();
  });
}

/** Marks the visible section in the navigation. */
function watchSections() {
  const links = new Map([...document.querySelectorAll('nav.sections a')].map((link) => [link.hash.slice(1), link]));
  const seen = new Set();
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) entry.isIntersecting ? seen.add(entry.target.id) : seen.delete(entry.target.id);
    const current = [...links.keys()].find((id) => seen.has(id));
    for (const [id, link] of links) id === current ? link.setAttribute('aria-current', 'true') : link.removeAttribute('aria-current');
  }, { rootMargin: '-25% 0px -60% 0px' });
  for (const id of links.keys()) watch.observe(byId(id));
}

onKeyRequired(askForKey);
byId('forget-key').addEventListener('click', () => {
  forgetKey();
  location.reload();
});
for (const part of [fleet, batches, dead, model]) part.loading();
score.build();
model.onChampion(score.championIs);
batches.listen();
watchSections();
retryNow = follow('/v1/fleet/events', { event: (name, data) => events[name]?.(data), live, lost });
