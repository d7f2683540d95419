// The API page: renders /openapi.json (OpenAPI 3.1), every operation with request, responses and a curl command.

import { byId, h, show, skeleton, empty, write } from './dom.js';

const METHODS = ['get', 'post', 'put', 'patch', 'delete', 'head', 'options', 'trace'];
const DEPTH_OF_EXAMPLES = 6;

let api;

/** Resolves a reference. */
function resolve(value) {
  for (let hops = 0; value?.$ref && hops < 20; hops++) {
    const found = value.$ref.replace(/^#\//, '').split('/').reduce((at, key) => at?.[decodeURIComponent(key).replaceAll('~1', '/').replaceAll('~0', '~')], api);
    const { $ref, ...beside } = value;
    value = { ...found, ...beside };
  }
  return value ?? {};
}

const nameOf = (schema) => schema?.$ref?.split('/').pop();

// Texts

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\[([^\]]+)\]\(((?:https?:\/\/|\/|#)[^)\s]+)\)/g;

function inline(text) {
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, code, bold, words, href] = match;
    parts.push(text.slice(from, match.index));
    parts.push(code !== undefined ? h('code', {}, code) : bold !== undefined ? h('strong', {}, bold) : h('a', { href }, words));
    from = match.index + whole.length;
  }
  parts.push(text.slice(from));
  return parts;
}

/** Renders the Markdown of doc comments: paragraphs, lists, code, bold, links. */
function prose(text) {
  if (!text) return '';
  const blocks = text.replaceAll('\r\n', '\n').split(/(```[\s\S]*?```)|\n\s*\n/).filter((block) => block?.trim());
  return h('div', { class: 'prose' }, blocks.map((block) => {
    if (block.startsWith('```')) return h('pre', {}, block.replace(/^```.*\n?/, '').replace(/\n?```$/, ''));
    const lines = block.trim().split('\n');
    if (lines.every((line) => /^\s*([*-] |\s)/.test(line)) && /^\s*[*-] /.test(lines[0])) {
      const items = block.trim().split(/\n(?=\s*[*-] )/).map((item) => item.replace(/^\s*[*-] /, '').replaceAll(/\s*\n\s*/g, ' '));
      return h('ul', {}, items.map((item) => h('li', {}, inline(item))));
    }
    return h('p', {}, inline(lines.map((line) => line.replace(/^#+ /, '').trim()).join(' ')));
  }));
}

function code(text, what) {
  const button = h('button', { type: 'button', class: 'copy', 'aria-label': `Copy ${what}` }, 'Copy');
  const pre = h('pre', { tabindex: '0', 'aria-label': what }, text);
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text);
      write(button, 'Copied');
    } catch {
      getSelection().selectAllChildren(pre);
      write(button, document.execCommand('copy') ? 'Copied' : 'Press Ctrl+C');
    }
    setTimeout(() => write(button, 'Copy'), 2000);
  });
  return h('div', { class: 'code' }, pre, button);
}

// Schemas

const alternatives = (schema) => schema.oneOf ?? schema.anyOf;
const isNull = (schema) => schema.type === 'null';

/** Describes a schema's type: `array of Batch`, `string (date-time) or null`. */
function typeWords(raw) {
  const schema = resolve(raw);
  const name = nameOf(raw);
  const types = [schema.type ?? []].flat();
  const orNull = types.includes('null') ? ' or null' : '';
  const some = alternatives(schema);
  if (some) {
    const words = some.map((one) => (isNull(one) ? 'null' : typeWords(one)));
    return name ? `${name}: ${words.join(' or ')}` : words.join(' or ');
  }
  if (types.includes('array')) return `array of ${typeWords(schema.items ?? {})}${orNull}`;
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (name && !schema.enum) return name + orNull;
  if (schema.allOf) return schema.allOf.map(typeWords).join(' and ');
  const base = types.filter((type) => type !== 'null').join(' or ') || (schema.properties ? 'object' : 'anything');
  if (base === 'object' && typeof schema.additionalProperties === 'object' && !schema.properties) return `object of ${typeWords(schema.additionalProperties)} by name${orNull}`;
  return base + (schema.format ? ` (${schema.format})` : '') + orNull;
}

const LIMITS = {
  minimum: (v) => `at least ${v}`, maximum: (v) => `at most ${v}`, exclusiveMinimum: (v) => `more than ${v}`, exclusiveMaximum: (v) => `less than ${v}`,
  minLength: (v) => `${v} characters at least`, maxLength: (v) => `${v} characters at most`, minItems: (v) => `${v} items at least`, maxItems: (v) => `${v} items at most`,
  pattern: (v) => `matches ${v}`,
};

function limits(schema) {
  const limits = Object.entries(LIMITS).filter(([key]) => schema[key] !== undefined && typeof schema[key] !== 'boolean').map(([key, words]) => words(schema[key]));
  if (schema.default !== undefined && schema.default !== null) limits.push(`by default ${JSON.stringify(schema.default)}`);
  return limits.length ? ` · ${limits.join(', ')}` : '';
}

const values = (schema) => (schema.enum ? h('p', { class: 'values' }, 'One of ', schema.enum.map((value) => h('code', {}, JSON.stringify(value)))) : '');

/** Returns the parts of a schema that can be opened. */
function parts(raw, seen = 0) {
  const schema = resolve(raw);
  if (seen > 8) return [];
  if (schema.properties || schema.allOf) return [raw];
  if (schema.items) return parts(schema.items, seen + 1);
  if (typeof schema.additionalProperties === 'object') return parts(schema.additionalProperties, seen + 1);
  return (alternatives(schema) ?? []).flatMap((one) => parts(one, seen + 1));
}

function properties(raw) {
  const schema = resolve(raw);
  const all = [schema, ...(schema.allOf ?? []).map(resolve)];
  const required = new Set(all.flatMap((one) => one.required ?? []));
  const rows = all.flatMap((one) => Object.entries(one.properties ?? {}));
  return h('dl', { class: 'rows' }, rows.map(([name, property]) => {
    const meant = resolve(property);
    const value = meant.items ? resolve(meant.items) : meant;
    return h('div', {},
      h('dt', {}, h('code', {}, name), required.has(name) ? h('span', { class: 'required' }, ' required') : ''),
      h('dd', {}, h('span', { class: 'type' }, typeWords(property), limits(meant)), prose(property.description ?? meant.description), values(value), inside(property)));
  }));
}

/** Renders the parts of a schema, each when it is opened, because schemas may be recursive. */
function inside(raw, open = false) {
  const unlike = parts(raw).filter((part, i, all) => !part.$ref || all.findIndex((other) => other.$ref === part.$ref) === i);
  return unlike.map((part, i, all) => {
    const details = h('details', { class: 'schema' }, h('summary', {}, nameOf(part) ?? resolve(part).title ?? (all.length > 1 ? `form ${i + 1}` : 'fields')));
    const fill = () => details.childElementCount > 1 || details.append(prose(resolve(part).description), properties(part));
    details.addEventListener('toggle', () => details.open && fill());
    if (open) {
      fill();
      details.open = true;
    }
    return details;
  });
}

/** Derives an example from a schema that has none. */
function sample(raw, depth = 0) {
  const schema = resolve(raw);
  const given = schema.example ?? schema.examples?.[0] ?? schema.default ?? schema.const ?? schema.enum?.[0];
  if (given !== undefined) return given;
  if (depth > DEPTH_OF_EXAMPLES) return null;
  if (schema.allOf) return Object.assign({}, ...schema.allOf.map((one) => sample(one, depth + 1)));
  const some = alternatives(schema)?.filter((one) => !isNull(one));
  if (some?.length) return sample(some[0], depth + 1);
  const type = [schema.type ?? []].flat().find((one) => one !== 'null');
  if (type === 'array') return [sample(schema.items ?? {}, depth + 1)];
  if (type === 'object' || schema.properties) {
    const required = new Set(schema.required ?? []);
    const wanted = Object.entries(schema.properties ?? {}).filter(([name]) => depth < 2 || required.has(name));
    return Object.fromEntries(wanted.map(([name, property]) => [name, sample(property, depth + 1)]));
  }
  if (type === 'string') return schema.format === 'date-time' ? '2026-11-24T09:30:00Z' : 'text';
  if (type === 'boolean') return true;
  return type === 'integer' || type === 'number' ? 0 : null;
}

const isJson = (type) => /json/.test(type) && !/ndjson/.test(type);

function exampleOf(type, media) {
  const named = Object.values(media.examples ?? {})[0];
  const written = media.example ?? resolve(named).value;
  if (written !== undefined) return written;
  return isJson(type) && media.schema ? sample(media.schema) : undefined;
}

const asText = (value) => (typeof value === 'string' ? value : JSON.stringify(value, null, 2));

// Operations

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl(method, path, operation, parameters) {
  const filled = path.replaceAll(/\{([^}]+)\}/g, (whole, name) => {
    const parameter = parameters.find((one) => one.in === 'path' && one.name === name);
    const example = parameter?.example ?? resolve(parameter?.schema).example;
    return example === undefined ? whole : encodeURIComponent(example);
  });
  const query = parameters.filter((one) => one.in === 'query' && one.required).map((one) => `${one.name}=${encodeURIComponent(one.example ?? '…')}`).join('&');
  const url = quoted(location.origin + filled + (query ? `?${query}` : ''));
  const verb = method === 'head' ? '--head ' : method === 'get' || (method === 'post' && operation.requestBody) ? '' : `-X ${method.toUpperCase()} `;
  const stream = /event-stream/.test(JSON.stringify(operation.responses?.[200]?.content ?? {})) ? '--no-buffer ' : '';
  const words = [`curl ${verb}${stream}${url}`];
  if ((operation.security ?? api.security ?? []).some((way) => Object.keys(way).length)) words.push(`-H ${quoted('Authorization: Bearer KEY')}`);
  const body = resolve(operation.requestBody);
  const forms = Object.entries(body.content ?? {});
  const [type, media] = forms.find(([one]) => isJson(one)) ?? forms[0] ?? [];
  if (type) {
    words.push(`-H ${quoted(`Content-Type: ${type}`)}`);
    const example = exampleOf(type, media);
    // JSON and bytes are sent from a file.
    const uploads = !isJson(type) || forms.some(([one]) => /octet-stream/.test(one));
    words.push(uploads ? '--data-binary @rides.json' : `-d ${quoted(JSON.stringify(example))}`);
  }
  return words.join(' \\\n  ');
}

function content(of, what) {
  return Object.entries(of ?? {}).map(([type, media]) => {
    const example = exampleOf(type, media);
    return [
      h('p', { class: 'type' }, h('code', {}, type), media.schema && !/octet-stream/.test(type) ? ` · ${typeWords(media.schema)}` : ''),
      media.schema ? inside(media.schema) : '',
      example === undefined || JSON.stringify(example) === '{}' ? '' : h('details', { class: 'schema', open: what === 'request' }, h('summary', {}, 'Example'), code(asText(example), `the example of the ${what}`)),
    ];
  });
}

function parameterRows(parameters) {
  return [h('h4', {}, 'Parameters'), h('dl', { class: 'rows' }, parameters.map((parameter) => {
    const schema = resolve(parameter.schema);
    const example = parameter.example ?? schema.example;
    return h('div', {},
      h('dt', {}, h('code', {}, parameter.name), parameter.required ? h('span', { class: 'required' }, ' required') : ''),
      h('dd', {}, h('span', { class: 'type' }, `${parameter.in}, ${typeWords(parameter.schema ?? {})}`, limits(schema)), prose(parameter.description ?? schema.description), values(schema),
        example === undefined || JSON.stringify(example) === '{}' ? '' : h('p', { class: 'type' }, 'As in ', h('code', {}, asText(example)))));
  }))];
}

const isProblem = (response) => Object.keys(response.content ?? {}).join() === 'application/problem+json';

/** Renders the responses; all problems share one entry. */
function answers(operation) {
  const all = Object.entries(operation.responses ?? {}).map(([status, raw]) => [status, resolve(raw)]);
  const problems = all.filter(([, response]) => isProblem(response));
  const status = (code) => h('span', { class: 'status', data: { class: code[0] } }, code);
  const plain = all.filter(([, response]) => !isProblem(response)).map(([code, response]) => h('div', {},
    h('dt', {}, status(code)),
    h('dd', {}, prose(response.description),
      Object.entries(response.headers ?? {}).map(([name, header]) => h('p', { class: 'type' }, 'Header ', h('code', {}, name), ` · ${resolve(header).description ?? typeWords(resolve(header).schema ?? {})}`)),
      content(response.content, 'response'))));
  const folded = problems.length
    ? h('div', {}, h('dt', {}, h('span', { class: 'status', data: { class: '4' } }, '4xx, 5xx')),
        h('dd', {}, h('details', { class: 'schema' }, h('summary', {}, `${problems.length} kinds of problem`), h('ul', { class: 'problems' }, problems.map(([code, response]) => h('li', {}, status(code), ' ', inline(response.description ?? ''))))),
          content(problems[0][1].content, 'problem')))
    : '';
  return h('dl', { class: 'rows answers' }, plain, folded);
}

const idOf = (method, path) => `${method}${path.replaceAll(/[^a-z0-9]+/gi, '-')}`.replace(/-$/, '');

function drawOperation({ method, path, operation, shared }) {
  const own = (operation.parameters ?? []).map(resolve);
  const parameters = [...shared.map(resolve).filter((one) => !own.some((other) => other.name === one.name && other.in === one.in)), ...own];
  const body = resolve(operation.requestBody);
  const id = idOf(method, path);
  return h('article', { class: 'operation', id, 'aria-labelledby': `${id}-name` },
    h('h3', { id: `${id}-name` }, h('span', { class: `method ${method}` }, method.toUpperCase()), h('span', {}, path)),
    h('p', { class: 'summary' }, inline((operation.summary ?? '').replace(/\.$/, ''))),
    operation.deprecated ? h('p', { class: 'deprecated' }, 'Deprecated: a later version removes it.') : '',
    prose(operation.description),
    parameters.length ? parameterRows(parameters) : '',
    body.content ? [h('h4', {}, 'Request body', body.required ? '' : h('small', {}, ' · optional')), prose(body.description), content(body.content, 'request')] : '',
    h('h4', {}, 'Responses'), answers(operation),
    h('h4', {}, 'From a shell'), code(curl(method, path, operation, parameters), `the curl command of ${method} ${path}`));
}

const keyHeader = (scheme) => (scheme.type === 'http' ? `Authorization: ${scheme.scheme === 'bearer' ? 'Bearer' : scheme.scheme} KEY` : `${scheme.name}: KEY`);

const brief = (operation) => operation.summary?.replaceAll('`', '').replace(/\.$/, '');

function draw() {
  const operations = Object.entries(api.paths ?? {}).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ method, path, operation: item[method], shared: item.parameters ?? [], tag: item[method].tags?.[0] ?? 'other' })));
  const described = new Map((api.tags ?? []).map((tag) => [tag.name, tag.description]));
  const tags = [...new Set([...described.keys(), ...operations.map(({ tag }) => tag)])].filter((tag) => operations.some((one) => one.tag === tag));
  const schemes = Object.entries(api.components?.securitySchemes ?? {});
  write(byId('api-version'), `Version ${api.info?.version ?? '?'}, OpenAPI ${api.openapi ?? '?'}`);
  const fold = h('details', { open: !matchMedia('(max-width: 1040px)').matches }, h('summary', {}, 'Operations'));
  show(byId('contents'), fold);
  fold.append(...tags.map((tag) => h('div', {}, h('h2', {}, tag), operations.filter((one) => one.tag === tag).map(({ method, path, operation }) =>
    h('a', { href: `#${idOf(method, path)}` }, brief(operation) || `${method.toUpperCase()} ${path}`)))));
  show(byId('operations'),
    h('section', { class: 'intro' }, h('h1', {}, api.info?.title ?? 'API'), prose(api.info?.description),
      schemes.length ? h('div', { class: 'prose keys' }, h('p', {}, h('strong', {}, 'Keys. '), 'If the gateway requires one: ', schemes.flatMap(([, scheme], i) => [i ? ', or ' : '', h('code', {}, keyHeader(scheme))]), '.')) : ''),
    tags.map((tag) => h('section', { 'aria-labelledby': `tag-${tag}` }, h('h2', { id: `tag-${tag}` }, tag), described.get(tag) ? h('div', { class: 'tag-lead' }, prose(described.get(tag))) : '',
      operations.filter((one) => one.tag === tag).map(drawOperation))));
  // The document loads after the page: the browser could not scroll to the anchor before.
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
  watch();
}

/** Marks the visible operation in the contents. */
function watch() {
  const links = new Map([...document.querySelectorAll('#contents a')].map((link) => [link.hash.slice(1), link]));
  const seen = new Set();
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) entry.isIntersecting ? seen.add(entry.target.id) : seen.delete(entry.target.id);
    const here = [...links.keys()].findLast((id) => seen.has(id));
    for (const [id, link] of links) id === here ? link.setAttribute('aria-current', 'true') : link.removeAttribute('aria-current');
  }, { rootMargin: '-15% 0px -75% 0px' });
  for (const id of links.keys()) observer.observe(byId(id));
}

show(byId('operations'), h('section', { class: 'intro' }, skeleton(8)));
byId('operations').setAttribute('aria-busy', 'true');
try {
  const response = await fetch('/openapi.json');
  if (!response.ok) throw new Error(`/openapi.json was answered with ${response.status}.`);
  api = await response.json();
  draw();
} catch (error) {
  show(byId('operations'), h('section', { class: 'intro' }, empty('The API document cannot be shown.', h('p', {}, error.message), h('p', {}, h('a', { href: '/docs' }, 'Try again')))));
}
