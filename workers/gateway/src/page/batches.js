// Batches: uploads, and what became of their rides.

import { Problem, firstLines, get, hasKey, post, save, upload } from './api.js';
import { byId, bytes, copyable, empty, h, number, percent, plural, reason, show, skeleton, time } from './dom.js';
import { stackedBar } from './charts.js';

const PAGE = 20;
const REJECTED_SHOWN = 50;
const POLL_MS = 1500;
const POLL_MS_MAX = 10_000;
const UPLOADS_AT_ONCE = 2;
const REASONS_SHOWN = 3;

/** What to do about a refused batch, by reason. */
const WAYS_OUT = {
  empty: 'The file has no rides. Check the export, and upload the file again.',
  not_a_batch: 'Send a JSON array of rides, {"travel_data": […]}, one object per line, or concatenated objects.',
  invalid_json: 'Fix the JSON at that position and upload the file again. In a file with one ride per line, only the invalid line is rejected.',
  cut_short: 'The file is truncated. Upload the complete file; none of its rides were accepted.',
  ride_too_large: 'One ride is too large. Check that position: a quote or a brace may be missing.',
  bad_compression: 'Compress the file again with gzip or zstd, or send it uncompressed.',
  expands_too_much: 'The decompressed file exceeds the limit. Split it into several files.',
  too_many_chunks: 'Split the file into several files.',
  too_many_ride_ids: 'Split the file into several files.',
  batch_id_conflict: 'Another file has this batch id. Upload without a batch id, or choose another.',
  invalid_batch_id: 'Upload without a batch id, or choose one of letters, digits, dots, dashes and underscores.',
  object_missing: 'The uploaded file is missing in the store. Upload it again.',
  object_changed: 'The uploaded file was changed in the store. Upload it again.',
};
const REPLAY = 'The file may be valid. Fix the cause that the reason names, then replay the dead letter.';

let list = [];
let older;
let trouble;
const opened = new Set();
/** Refreshes that this page requested, by batch id: what became of each, in words, and whether it is in progress. */
const refreshes = new Map();
/** Batches uploaded from this page: they stay in the list, however old the batch is. */
const mine = new Set();
let poll;
let pollMs = POLL_MS;

export function loading() {
  show(byId('batch-list'), skeleton(4, '2.6rem'));
}

const legend = (kind, count, words, detail) =>
  h('li', { class: `legend ${kind}`, data: { zero: count ? 'no' : 'yes' } }, h('strong', {}, number(count)), ` ${words}`, detail ? h('small', {}, detail) : '');

/** Describes counts by reason: the most frequent first, the others in a details element. */
function reasons(counts) {
  const sorted = Object.entries(counts ?? {}).sort((a, b) => b[1] - a[1]);
  if (sorted.length === 1) return reason(sorted[0][0]);
  const all = sorted.map(([code, count]) => `${number(count)} × ${reason(code)}`);
  if (all.length <= REASONS_SHOWN + 1) return all.join(', ');
  return [all.slice(0, REASONS_SHOWN).join(', '), ', ', h('details', {}, h('summary', { data: { focus: 'reasons' } }, `and ${all.length - REASONS_SHOWN} more reasons`), all.slice(REASONS_SHOWN).join(', '))];
}

function whereRidesWent({ counts }) {
  const unlabelled = counts.accepted - counts.labelled;
  const dry = counts.labelled - counts.trainable;
  const parts = [
    { name: 'to train on', count: counts.trainable, kind: 'trainable' },
    { name: 'without label', count: unlabelled, kind: 'unlabelled' },
    { name: 'without weather', count: dry, kind: 'dry' },
    { name: 'rejected', count: counts.rejected, kind: 'rejected' },
  ];
  const summary = parts.filter((part) => part.count).map((part) => `${number(part.count)} ${part.name}`).join(', ');
  const weather = Object.values(counts.without_weather ?? {}).reduce((sum, count) => sum + count, 0);
  const also = weather > dry && unlabelled ? ` (${number(weather - dry)} of the unlabelled have no weather either)` : '';
  return [
    stackedBar(parts, `Of ${plural(counts.received, 'ride')}: ${summary || 'none'}`),
    h('ul', { class: 'legends' },
      legend('trainable', counts.trainable, 'to train on'),
      legend('unlabelled', unlabelled, 'without label'),
      legend('dry', dry, 'without weather', dry ? [reasons(counts.without_weather), also] : ''),
      legend('rejected', counts.rejected, 'rejected', counts.rejected ? reasons(counts.rejected_by_reason) : '')),
  ];
}

function progress({ progress: done, state }) {
  if (state === 'queued') return h('p', { class: 'waiting' }, 'Waits for a splitter.');
  const { rides_joined: joined = 0, rides_total: total } = done ?? {};
  const share = total ? joined / total : undefined;
  const words = total ? `${number(joined)} of ${plural(total, 'ride')} joined with their weather` : joined ? `${plural(joined, 'ride')} joined with their weather so far` : 'being split';
  const bar = h('div', { class: share === undefined ? 'progress unknown' : 'progress', role: 'progressbar', 'aria-label': words, 'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-valuenow': share === undefined ? undefined : Math.round(share * 100) },
    h('span', { style: share === undefined ? {} : { width: `${share * 100}%` } }));
  return [bar, h('p', { class: 'waiting' }, words, share === undefined ? '' : ` · ${percent(share, 0)}`)];
}

function refusal({ refused = {}, batch_id: id }) {
  const why = refused.why?.replace(new RegExp(`^${refused.reason}( at |: )`), (_, then) => (then === ' at ' ? 'At ' : '')) ?? '';
  return h('div', { class: 'refusal' },
    h('p', {}, h('strong', {}, `Refused by the ${refused.queue ?? 'fleet'}: ${reason(refused.reason ?? 'no reason given')}.`), ' ', why),
    h('p', { class: 'way' }, WAYS_OUT[refused.reason] ?? REPLAY),
    WAYS_OUT[refused.reason] ? '' : h('p', { class: 'way' }, copyable(`wildrydes dead list`, 'the command that lists dead letters')),
    h('p', { class: 'visually-hidden' }, `Batch ${id}`));
}

const STATES = { queued: 'queued', in_progress: 'in progress', ready: 'ready', refused: 'refused' };

/** A link to save what lies at `path`. With a key it is fetched, as links carry none. */
function download(path, name, words, of) {
  const link = h('a', { href: path, download: name, 'aria-label': `${words}, of ${of}`, data: { focus: path } }, words);
  link.addEventListener('click', async (event) => {
    if (!hasKey()) return;
    event.preventDefault();
    try {
      await save(path, name);
    } catch (error) {
      link.after(h('span', { class: 'bad-words', role: 'alert' }, ` ${error.message}`));
    }
  });
  return link;
}

/** Returns the first rejected rides of a batch, fetched when they are opened. */
function rejectedRides(batch) {
  const place = h('div', { class: 'rejected-rides' });
  const id = batch.batch_id;
  const details = h('details', { class: 'rejected-details' }, h('summary', { data: { focus: `rejected ${id}` } }, 'Show them'), place);
  const fill = async () => {
    opened.add(id);
    show(place, skeleton(3));
    try {
      const rides = await firstLines(batch.links.rejected, REJECTED_SHOWN);
      const count = batch.counts.rejected;
      show(place,
        h('div', { class: 'scrolls', tabindex: '0', role: 'region', 'aria-label': `Rejected rides of batch ${id}` },
          h('table', {},
            h('thead', {}, h('tr', {}, ['Ride', 'Reason', 'As received'].map((name) => h('th', { scope: 'col' }, name)))),
            h('tbody', {}, rides.map((ride) => h('tr', {}, h('td', {}, number(ride.index)), h('td', {}, reason(ride.reason)), h('td', {}, h('code', {}, typeof ride.ride === 'string' ? ride.ride : JSON.stringify(ride.ride)))))))),
        count > rides.length ? h('p', { class: 'note' }, `The first ${rides.length} of ${number(count)}; the file has them all. Rides are counted from 0.`) : h('p', { class: 'note' }, 'Rides are counted from 0.'));
    } catch (error) {
      show(place, h('p', { class: 'bad-words' }, error.message));
    }
  };
  details.addEventListener('toggle', () => (details.open ? place.childElementCount || fill() : opened.delete(id)));
  if (opened.has(id)) details.open = true;
  return details;
}

/** Describes the outcome of a refresh. */
function inWords({ revision, base_revision: base, gained, altered, lost, not_yet_published: expected }) {
  const changes = [[gained, 'gained weather'], [altered, 'have other weather'], [lost, 'lost their weather']].filter(([count]) => count).map(([count, what]) => `${number(count)} ${what}`);
  const waiting = expected ? ` ${plural(expected, 'ride')} still without published weather.` : '';
  return `${revision === base ? 'Joined again: nothing changed.' : `Joined again as revision ${revision}: ${changes.join(', ')}.`}${waiting}`;
}

/** Requests a refresh and follows it to its outcome. */
async function joinAgain(id) {
  const say = (words, inProgress = false) => {
    refreshes.set(id, { words, inProgress });
    draw();
  };
  const path = `/v1/batches/${encodeURIComponent(id)}/refresh`;
  try {
    await post(path);
    say('Being joined again with the weather as of now.', true);
    // An attempt goes on whether or not the gateway can be asked about it, and another one may follow at once.
    let state;
    while (!state?.outcome) {
      await new Promise((ready) => setTimeout(ready, POLL_MS));
      state = await get(path).catch(() => state);
    }
    say(inWords({ ...state.outcome, base_revision: state.base_revision }));
    await refreshOne(id);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    say(`Not joined again: ${error.message}`);
  }
}

/** A button that joins a batch again, if rides lack weather; and what became of it. */
function rejoin({ batch_id: id, counts }, name) {
  const { words, inProgress } = refreshes.get(id) ?? {};
  const said = words ? h('p', { class: 'note rejoined', role: 'status' }, words) : '';
  if (inProgress || !Object.values(counts.without_weather ?? {}).some(Boolean)) return said;
  const button = h('button', { type: 'button', class: 'link rejoin', 'aria-label': `Join ${name} again with the weather as of now`, data: { focus: `rejoin ${id}` } }, 'Join again with the weather as of now');
  button.addEventListener('click', () => joinAgain(id));
  return [button, said];
}

function row(batch) {
  const id = batch.batch_id;
  const name = batch.source ?? id;
  const size = batch.files?.reduce((sum, file) => sum + file.bytes, 0);
  const stations = Object.keys(batch.stations ?? {}).length;
  const facts = batch.state === 'ready' ? [plural(batch.counts.received, 'ride'), stations ? `weather of ${plural(stations, 'station')}` : '', batch.revision > 1 ? `revision ${batch.revision}` : ''] : [];
  const what = batch.state === 'ready' ? whereRidesWent(batch) : batch.state === 'refused' ? refusal(batch) : progress(batch);
  const links = batch.state === 'ready' && h('div', { class: 'links' },
    batch.links.dataset ? download(batch.links.dataset, `${id}.csv`, `Dataset, CSV${size ? `, ${bytes(size)}` : ''}`, name) : '',
    batch.counts.rejected ? [download(batch.links.rejected, `${id}-rejected.ndjson`, 'Rejected rides, NDJSON', name), rejectedRides(batch)] : '',
    rejoin(batch, name));
  const details = [batch.submitted_at ? time(batch.submitted_at) : '', ...facts].filter(Boolean);
  return h('li', { class: 'batch', data: { batchId: id, state: batch.state } },
    h('div', {},
      h('h3', {}, name),
      h('p', { class: 'facts' }, h('span', { class: 'mark', data: { state: batch.state } }, STATES[batch.state] ?? batch.state), batch.source ? h('code', { title: 'Batch id' }, id) : ''),
      h('p', { class: 'facts' }, details.flatMap((fact, i) => (i ? [' · ', fact] : [fact])))),
    h('div', {}, what, links));
}

const keyOf = (batch) => JSON.stringify([batch, refreshes.get(batch.batch_id)]);
const drawn = new Map();

function draw() {
  const place = byId('batch-list');
  if (trouble && !list.length) {
    show(place, empty('The batches cannot be shown.', h('p', {}, trouble.message)));
    return;
  }
  if (!list.length) {
    show(place, empty('No batches yet.',
      h('p', {}, 'Upload a file of rides above, or ingest one from a shell:'),
      h('p', {}, copyable('wildrydes ingest rides.json', 'the command')),
      h('p', {}, 'This generates example rides:'),
      h('p', {}, copyable('wildrydes generate rides rides.json', 'the command'))));
    return;
  }
  // Unchanged rows are kept, so that open details, focus and selection in them stay.
  const rows = list.map((batch) => {
    const [key, element] = drawn.get(batch.batch_id) ?? [];
    if (key === keyOf(batch)) return element;
    const made = row(batch);
    drawn.set(batch.batch_id, [keyOf(batch), made]);
    return made;
  });
  let ul = place.querySelector('ul.batches');
  if (!ul) {
    ul = h('ul', { class: 'batches', 'aria-label': 'Batches, newest first' });
    show(place, ul);
  }
  for (const old of [...ul.children]) if (!rows.includes(old)) old.remove();
  rows.forEach((element, i) => ul.children[i] !== element && ul.insertBefore(element, ul.children[i] ?? null));
  place.querySelector('.older')?.remove();
  if (older) place.append(h('p', { class: 'older' }, h('button', { type: 'button', onclick: more }, 'Older batches')));
}

/** Fetches a page of batches, from the `next` of the previous page; skips empty pages that others follow. */
async function page(after) {
  let answer = { next: after };
  do {
    answer = await get(`/v1/batches?limit=${PAGE}${answer.next ? `&after=${encodeURIComponent(answer.next)}` : ''}`);
  } while (!answer.batches.length && answer.next);
  return answer;
}

/** Fetches the newest batches again and keeps the others. */
export async function refresh() {
  clearTimeout(poll);
  try {
    const answer = await page();
    const fresh = new Set(answer.batches.map((batch) => batch.batch_id));
    const unlisted = list.filter((batch) => mine.has(batch.batch_id) && !fresh.has(batch.batch_id));
    const further = list.slice(PAGE).filter((batch) => !fresh.has(batch.batch_id) && !mine.has(batch.batch_id));
    if (!further.length) older = answer.next;
    const before = JSON.stringify(list);
    list = [...(await Promise.all(unlisted.map(again))), ...answer.batches, ...further];
    // Without changes, polling slows down.
    pollMs = before === JSON.stringify(list) ? Math.min(pollMs * 1.5, POLL_MS_MAX) : POLL_MS;
    trouble = undefined;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    trouble = error;
  }
  draw();
  later();
}

const isMoving = (batch) => batch.state === 'queued' || batch.state === 'in_progress';

const one = (id) => get(`/v1/batches/${encodeURIComponent(id)}`);

/** Returns the current state of a batch, or the last one if it cannot be fetched. */
const again = (batch) => (isMoving(batch) ? one(batch.batch_id).catch(() => batch) : batch);

function later() {
  clearTimeout(poll);
  if (list.some(isMoving) && !trouble) poll = setTimeout(() => (document.hidden ? later() : refresh()), pollMs);
}

/** Fetches one batch that an event names. */
export async function refreshOne(id) {
  try {
    const batch = await one(id);
    const at = list.findIndex((known) => known.batch_id === id);
    if (at < 0) list.unshift(batch);
    else list[at] = { ...batch, source: batch.source ?? list[at].source };
    draw();
    pollMs = POLL_MS;
    later();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    await refresh();
  }
}

async function more() {
  try {
    const answer = await page(older);
    const known = new Set(list.map((batch) => batch.batch_id));
    list.push(...answer.batches.filter((batch) => !known.has(batch.batch_id)));
    older = answer.next;
    draw();
  } catch (error) {
    byId('batch-list').append(h('p', { class: 'bad-words', role: 'alert' }, error.message));
  }
}

// Uploads

const waiting = [];
let running = 0;

function entry(file) {
  const stop = new AbortController();
  const bar = h('span', {});
  const words = h('span', { class: 'upload-words' }, 'waits');
  const track = h('div', { class: 'progress', role: 'progressbar', 'aria-label': `Upload of ${file.name}`, 'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-valuenow': 0 }, bar);
  const button = h('button', { type: 'button', class: 'link', 'aria-label': `Cancel the upload of ${file.name}` }, 'Cancel');
  const element = h('li', { class: 'upload', data: { state: 'waiting' } }, h('p', { class: 'upload-head' }, h('strong', {}, file.name), ` ${bytes(file.size)} · `, words, ' ', button), track);
  button.addEventListener('click', () => {
    stop.abort();
    element.remove();
  });
  const close = (state, text) => {
    element.dataset.state = state;
    words.textContent = text;
    track.remove();
    button.textContent = 'Dismiss';
    button.setAttribute('aria-label', `Dismiss the message about ${file.name}`);
  };
  async function run() {
    if (stop.signal.aborted) return;
    element.dataset.state = 'sending';
    words.textContent = 'sending';
    try {
      const answer = await upload(file, (share) => {
        bar.style.width = `${share * 100}%`;
        track.setAttribute('aria-valuenow', String(Math.round(share * 100)));
        words.textContent = share < 1 ? percent(share, 0) : 'sent; waiting for the confirm of the broker';
      }, stop.signal);
      const known = list.find((batch) => batch.batch_id === answer.batch_id);
      if (known) close('known', `already exists as batch ${answer.batch_id}. Nothing changes.`);
      else {
        mine.add(answer.batch_id);
        pollMs = POLL_MS;
        list.unshift({ batch_id: answer.batch_id, state: 'queued', source: file.name, submitted_at: new Date().toISOString(), links: answer.links });
        draw();
        later();
        element.remove();
      }
    } catch (error) {
      if (error.name === 'AbortError') return;
      close('failed', error.message);
      element.setAttribute('role', 'alert');
      const again = h('button', { type: 'button', class: 'link', 'aria-label': `Upload ${file.name} again` }, 'Try again');
      again.addEventListener('click', () => {
        element.remove();
        add([file]);
      });
      button.before(again, ' ');
    }
  }
  return { element, run };
}

async function next() {
  if (running >= UPLOADS_AT_ONCE || !waiting.length) return;
  running++;
  await waiting.shift().run();
  running--;
  next();
}

function add(files) {
  for (const file of files) {
    const made = entry(file);
    byId('uploads').append(made.element);
    waiting.push(made);
    next();
  }
}

/** Connects the button and the drop area: files can be dropped anywhere on the page. */
export function listen() {
  const input = byId('upload');
  input.addEventListener('change', () => {
    add([...input.files]);
    input.value = '';
  });
  const carriesFiles = (event) => event.dataTransfer?.types.includes('Files');
  let depth = 0;
  const over = (is) => (byId('drop').dataset.over = is ? 'yes' : 'no');
  document.addEventListener('dragenter', (event) => carriesFiles(event) && (depth++, over(true)));
  document.addEventListener('dragleave', (event) => carriesFiles(event) && --depth <= 0 && ((depth = 0), over(false)));
  document.addEventListener('dragover', (event) => carriesFiles(event) && event.preventDefault());
  document.addEventListener('drop', (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    depth = 0;
    over(false);
    add([...event.dataTransfer.files]);
    byId('batches').scrollIntoView({ block: 'start' });
  });
}
