// The gateway's API: calls, the stream of events, uploads, and their API key.

const KEY = 'wildrydes-api-key';

/** A problem (RFC 9457) that the gateway answered with; `status` is 0 if it did not answer. */
export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(body.detail || body.title || `The gateway answered ${status}.`);
    this.status = status;
    this.type = body.type ?? '';
    this.title = body.title || `The gateway answered ${status}`;
    this.errors = body.errors ?? [];
    this.retryAfterS = retryAfter;
  }
}

const away = () => new Problem(0, { title: 'The gateway does not answer', detail: 'It may be restarting, or the network is down. This page retries.' });

function problem(status, text, header) {
  let body = {};
  try {
    body = JSON.parse(text);
  } catch {
    body = { detail: text.slice(0, 300) };
  }
  const seconds = Number.parseInt(header('Retry-After') ?? '', 10);
  return new Problem(status, body ?? {}, Number.isFinite(seconds) ? seconds : undefined);
}

let asking;
let declined = false;
let ask = async () => undefined;

/** Sets the function that asks for a key when the gateway requires one. It resolves to the key, or to undefined. */
export const onKeyRequired = (listener) => (ask = listener);
export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const forgetKey = () => sessionStorage.removeItem(KEY);
/** Lets calls ask for a key again. */
export const askAgain = () => (declined = false);

function authorization() {
  const key = sessionStorage.getItem(KEY);
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

/** Asks for a key, once for all concurrent calls. Returns whether there is now another key than `tried`. */
async function newKey(tried) {
  const now = sessionStorage.getItem(KEY);
  if (now !== null && now !== tried) return true;
  if (declined) return false;
  asking ??= ask(tried !== null).finally(() => (asking = undefined));
  const key = await asking;
  // After "not now", the following calls do not ask again.
  declined = !key;
  if (!key) return false;
  sessionStorage.setItem(KEY, key);
  return true;
}

/** Returns the response of a call; throws a `Problem` unless it succeeds. */
export async function call(path, options = {}) {
  for (;;) {
    const tried = sessionStorage.getItem(KEY);
    let response;
    try {
      response = await fetch(path, { cache: 'no-store', ...options, headers: { ...authorization(), ...options.headers } });
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw away();
    }
    if (response.ok) return response;
    if (response.status === 401 && (await newKey(tried))) continue;
    throw problem(response.status, await response.text(), (name) => response.headers.get(name));
  }
}

export const get = async (path, options) => (await call(path, options)).json();

export const post = async (path, value, options) =>
  (await call(path, { method: 'POST', body: JSON.stringify(value), ...options, headers: { 'Content-Type': 'application/json' } })).json();

/** Maximum length of a batch's `source`, bytes. */
const SOURCE_BYTES_MAX = 200;

/** Returns a file's name, shortened in the middle if it is too long. */
function sourceOf(name) {
  const bytes = (text) => new TextEncoder().encode(text).length;
  let letters = [...name];
  for (let most = letters.length - 1; bytes(letters.join('')) > SOURCE_BYTES_MAX; most--) {
    const all = [...name];
    letters = [...all.slice(0, Math.ceil(most / 2)), '…', ...all.slice(all.length - Math.floor(most / 2))];
  }
  return letters.join('');
}

/** Returns the media type of a file of rides, by its name. */
function contentType(name) {
  if (/\.gz$/i.test(name)) return 'application/gzip';
  if (/\.zst(d)?$/i.test(name)) return 'application/zstd';
  if (/\.(ndjson|jsonl)$/i.test(name)) return 'application/x-ndjson';
  if (/\.csv$/i.test(name)) return 'text/csv';
  if (/\.tsv$/i.test(name)) return 'text/tab-separated-values';
  if (/\.parquet$/i.test(name)) return 'application/vnd.apache.parquet';
  return /\.json$/i.test(name) ? 'application/json' : 'application/octet-stream';
}

/** Uploads a file; calls `progress` with the share that is sent. XMLHttpRequest, because fetch reports no progress. */
export async function upload(file, progress, signal) {
  for (;;) {
    const tried = sessionStorage.getItem(KEY);
    const request = new XMLHttpRequest();
    const done = new Promise((resolve, reject) => {
      request.onload = resolve;
      request.onerror = () => reject(away());
      request.onabort = () => reject(new DOMException('cancelled', 'AbortError'));
    });
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.open('POST', `/v1/batches?source=${encodeURIComponent(sourceOf(file.name))}`);
    request.setRequestHeader('Content-Type', contentType(file.name));
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    const abort = () => request.abort();
    signal.addEventListener('abort', abort);
    request.send(file);
    try {
      await done;
    } finally {
      signal.removeEventListener('abort', abort);
    }
    if (request.status >= 200 && request.status < 300) return JSON.parse(request.responseText);
    if (request.status === 401 && (await newKey(tried))) continue;
    throw problem(request.status, request.responseText, (name) => request.getResponseHeader(name));
  }
}

/** Saves the response of a path as a file. Not a link, because links cannot send the key. */
export async function save(path, name) {
  const url = URL.createObjectURL(await (await call(path)).blob());
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Returns at most `count` lines of an NDJSON answer; does not fetch the rest. */
export async function firstLines(path, count) {
  const stop = new AbortController();
  const response = await call(path, { signal: stop.signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  const lines = () => text.split('\n').filter((line) => line.trim() !== '');
  let done = false;
  while (!done && lines().length <= count) {
    const part = await reader.read();
    done = part.done;
    text += part.value ?? '';
  }
  if (!done) stop.abort();
  const first = lines().slice(0, count);
  return first.map((line) => JSON.parse(line));
}

const WAITS_MS = [500, 1000, 2000, 4000, 8000];
/** The gateway sends a snapshot every second; silence for this long means a dead connection. */
const SILENCE_MS = 8000;
const HIDDEN_MS = 30_000;

/**
 * Follows the stream of events and reconnects: `on.event(name, data)`, `on.live()`, `on.lost(problem, retryInMs)`.
 * Uses fetch, because EventSource cannot send the key. A hidden page closes its connection after a while: browsers
 * have six per host. Returns a function that retries at once.
 */
export function follow(path, on) {
  let failures = 0;
  let stop = new AbortController();
  let wake = () => {};
  let hidden;

  const rest = (ms) =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });

  async function once() {
    stop = new AbortController();
    let silence;
    const restartTimer = () => {
      clearTimeout(silence);
      silence = setTimeout(() => stop.abort(), SILENCE_MS);
    };
    restartTimer();
    try {
      const response = await call(path, { signal: stop.signal, headers: { Accept: 'text/event-stream' } });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = '';
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        restartTimer();
        if (failures !== -1) on.live();
        failures = -1;
        text = (text + value).replaceAll('\r\n', '\n');
        for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
          dispatch(text.slice(0, end));
          text = text.slice(end + 2);
        }
      }
    } finally {
      clearTimeout(silence);
    }
  }

  function dispatch(block) {
    let name = 'message';
    const data = [];
    for (const line of block.split('\n')) {
      if (line.startsWith('event:')) name = line.slice(6).trim();
      if (line.startsWith('data:')) data.push(line.slice(5).replace(/^ /, ''));
    }
    if (data.length) on.event(name, JSON.parse(data.join('\n')));
  }

  async function forever() {
    for (;;) {
      let why = away();
      try {
        await once();
      } catch (error) {
        if (error instanceof Problem) why = error;
      }
      failures = Math.max(failures, 0);
      const wait = document.hidden ? 1e9 : WAITS_MS[Math.min(failures, WAITS_MS.length - 1)];
      failures += 1;
      on.lost(why, wait);
      await rest(wait);
    }
  }

  document.addEventListener('visibilitychange', () => {
    clearTimeout(hidden);
    if (document.hidden) hidden = setTimeout(() => stop.abort(), HIDDEN_MS);
    else wake();
  });
  forever();
  return () => wake();
}
