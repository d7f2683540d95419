// Dead letters: queue, reason and batch, and the command that shows the rest.

import { Problem, get } from './api.js';
import { byId, bytes, calm, copyable, empty, h, number, plural, reason, show, skeleton, time } from './dom.js';

const SHOWN = 100;

export function loading() {
  show(byId('dead-list'), skeleton(2, '3rem'));
}

function row(letter) {
  const cell = (name, ...inside) => h('td', { data: { name } }, ...inside);
  const first = letter.first_error && !letter.why?.includes(letter.first_error) ? h('small', {}, `First: ${letter.first_error}`) : '';
  const rest = letter.why?.startsWith(letter.reason) ? letter.why.slice(letter.reason.length).replace(/^[: ]+/, '') : letter.why;
  const reach = [letter.kind ?? 'unknown kind', bytes(letter.body_bytes)].join(', ');
  return h('tr', { data: { id: letter.id } },
    cell('Queue', h('a', { href: `#stage-${letter.queue}` }, letter.queue), h('small', {}, reach)),
    cell('Reason', h('strong', {}, reason(letter.reason)), h('span', { class: 'why' }, rest), first),
    cell('Batch', letter.batch_id ? h('code', {}, letter.batch_id) : '–'),
    cell('When', letter.dead_at ? time(letter.dead_at) : '–', h('small', {}, plural(letter.attempts, 'attempt'))),
    cell('Details', copyable(`wildrydes dead show ${letter.id}`, 'the command that shows this dead letter')));
}

const newestFirst = (letters) => [...letters].sort((a, b) => (b.dead_at ?? '').localeCompare(a.dead_at ?? ''));

export async function refresh() {
  const place = byId('dead-list');
  let answer;
  try {
    answer = await get(`/v1/dead-letters?limit=${SHOWN}`);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (!place.querySelector('table')) show(place, empty('The dead letters cannot be shown.', h('p', {}, error.message)));
    return;
  }
  if (!answer.letters.length) {
    show(place, calm('None.', h('p', {}, 'Every message was handled, or waits in a queue.')));
    return;
  }
  show(place,
    h('table', { class: 'dead' },
      h('caption', { class: 'visually-hidden' }, 'Dead letters, newest first'),
      h('thead', {}, h('tr', {}, ['Queue', 'Reason', 'Batch', 'When', 'Details'].map((name) => h('th', { scope: 'col' }, name)))),
      h('tbody', {}, newestFirst(answer.letters).map(row))),
    answer.total > answer.letters.length ? h('p', { class: 'note' }, `The first ${answer.letters.length} of ${number(answer.total)}. All: `, copyable('wildrydes dead list', 'the command that lists all')) : '',
    h('p', { class: 'note' }, 'After fixing the cause, replay them: ', copyable('wildrydes dead replay --help', 'the command')));
}
