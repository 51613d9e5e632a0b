// The page of `quickcloud dev`: shows /api/state once a second and sends what the forms say.
// All text from the server goes into text nodes, never into markup.

const error = document.getElementById('error');

function cell(row, content, className) {
  const td = row.insertCell();
  if (content instanceof Node) td.append(content);
  else td.textContent = content ?? '';
  if (className) td.className = className;
  return td;
}

function button(text, action, className) {
  const element = document.createElement('button');
  element.type = 'button';
  element.textContent = text;
  if (className) element.className = className;
  element.addEventListener('click', action);
  return element;
}

// Rows that show the same as before stay untouched: a button that is replaced between press and
// release gets no click, and the focus would be lost every second.
function fill(id, items, render, empty) {
  const body = document.getElementById(id);
  const before = new Map([...body.rows].map((row) => [row.shows, row]));
  const rows = items.map((item) => {
    const shows = JSON.stringify(item);
    if (before.has(shows)) return before.get(shows);
    const row = document.createElement('tr');
    row.shows = shows;
    render(row, item);
    return row;
  });
  if (!rows.length) {
    rows.push(before.get(empty) ?? document.createElement('tr'));
    rows[0].shows = empty;
    if (!rows[0].cells.length) cell(rows[0], empty, 'hint').colSpan = 6;
  }
  for (const row of [...body.rows]) if (!rows.includes(row)) row.remove();
  rows.forEach((row, index) => {
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
  });
}

function why(td, text) {
  if (!text) return;
  const span = document.createElement('span');
  span.className = 'why';
  span.textContent = text;
  td.append(span);
}

function size(bytes) {
  if (bytes == null) return '';
  for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (bytes < 1024 || unit === 'GiB') return `${bytes < 10 && unit !== 'B' ? bytes.toFixed(1) : Math.round(bytes)} ${unit}`;
    bytes /= 1024;
  }
}

async function call(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: body ? { 'content-type': 'application/json' } : {},
    body: body ? JSON.stringify(body) : undefined,
  });
  const document = answer.status === 204 ? {} : await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(document.detail ?? `${answer.status} ${answer.statusText}`);
  return document;
}

async function act(work) {
  try {
    error.hidden = true;
    delete error.dataset.lost;
    await work();
    await refresh();
  } catch (failure) {
    error.textContent = failure.message;
    error.hidden = false;
  }
}

const health = { ready: 'ok', degraded: 'warn', starting: 'warn', backoff: 'bad', failed: 'bad' };
const states = { ready: 'ok', failed: 'bad' };

function show(state) {
  document.getElementById('server').textContent = `embedded management server at ${state.server}, zone ${state.zone}`;
  fill('roles', state.roles, (row, role) => {
    const link = state.links.find((entry) => entry.role === role.role);
    cell(row, role.role);
    why(cell(row, role.health, health[role.health]), role.reason);
    cell(row, link?.state ?? '–');
    cell(row, link?.host_id ?? '–');
    cell(row, link?.last_ping_ago_ms == null ? '–' : `${Math.round(link.last_ping_ago_ms / 1000)} s ago`);
    cell(row, link?.round_trip_ms == null ? '–' : `${link.round_trip_ms.toFixed(1)} ms`);
  }, 'no role is running');
  fill('vms', state.vms, (row, vm) => {
    cell(row, vm.name);
    cell(row, vm.screen);
    cell(row, vm.keys.slice(-24));
    cell(row, button('Open console', () => act(async () => {
      const { url } = await call('POST', `api/vms/${encodeURIComponent(vm.name)}/console`);
      window.open(url, '_blank', 'noopener');
    })));
    const more = row.cells[row.cells.length - 1];
    more.className = 'tight';
    more.append(' ', button('over https', () => act(async () => {
      const { secure_url: url } = await call('POST', `api/vms/${encodeURIComponent(vm.name)}/console`);
      window.open(url, '_blank', 'noopener');
    }), 'link'), ' ', button('move to another host', () => act(() => call('POST', `api/vms/${encodeURIComponent(vm.name)}/move`)), 'link'));
  }, 'no machine');
  const consoles = state.roles.find((role) => role.role === 'cp')?.details?.consoles ?? [];
  const shown = consoles.map(({ id, name, client, screen, encrypted, view_only: watching }) => ({ id, name, client, screen, encrypted, watching }));
  fill('consoles', shown, (row, item) => {
    cell(row, item.id);
    cell(row, item.name);
    cell(row, item.client);
    cell(row, item.screen + (item.encrypted ? ', TLS' : ''));
    cell(row, button('Kick', () => act(() => call('POST', `api/consoles/${item.id}/kick`)), 'quiet'));
  }, 'none is open');
  fill('templates', state.templates, (row, template) => {
    cell(row, template.name);
    cell(row, `${template.kind === 'volume' ? 'volume, ' : ''}${template.format}`);
    why(cell(row, template.state, states[template.state] ?? 'warn'), template.error ?? template.machine);
    const bar = document.createElement('progress');
    bar.max = 100;
    bar.value = template.percent;
    const td = cell(row, bar, 'tight');
    td.append(` ${template.percent} %`);
    cell(row, size(template.physical_size), 'tight');
    const actions = cell(row, '', 'tight');
    if (template.state === 'ready') {
      actions.append(button('Link', () => act(async () => {
        const { url } = await call('POST', `api/templates/${template.id}/link`);
        window.open(url, '_blank', 'noopener');
      })), ' ');
      actions.append(button('https', () => act(async () => {
        const { https } = await call('POST', `api/templates/${template.id}/link`);
        window.open(https, '_blank', 'noopener');
      })), ' ');
    }
    actions.append(button('Delete', () => act(() => call('DELETE', `api/templates/${template.id}`)), 'quiet'));
  }, 'nothing registered');
  fill('machines', state.machines, (row, item) => {
    const path = `api/machines/${encodeURIComponent(item.id)}`;
    cell(row, item.name);
    cell(row, item.state);
    cell(row, item.mac);
    cell(row, item.ipv4);
    cell(row, item.known_as ?? 'not yet');
    cell(row, item.leased ? 'yes' : 'no');
    const actions = cell(row, '', 'tight');
    actions.append(button('Rename', () => act(() => call('PUT', path, { name: `${item.name}-x` })), 'quiet'), ' ');
    actions.append(button('Expunge', () => act(() => call('DELETE', path)), 'quiet'));
  }, 'none');
  fill('reservations', state.reservations, (row, item) => {
    cell(row, item.hostname);
    cell(row, item.mac);
    cell(row, item.ipv4);
    cell(row, item.leased ? 'yes' : 'no');
    cell(row, button('Release', () => act(() => call('DELETE', `api/reservations/${encodeURIComponent(item.id)}`)), 'quiet'));
  }, 'none');
  document.getElementById('dhcp').textContent = state.dhcp ?? '';
}

async function refresh() {
  show(await call('GET', 'api/state'));
}

function form(id, path) {
  const element = document.getElementById(id);
  element.addEventListener('submit', (event) => {
    event.preventDefault();
    const fields = Object.fromEntries([...new FormData(element)].filter(([, value]) => value !== ''));
    act(async () => {
      await call('POST', path, fields);
      element.reset();
    });
  });
}

form('register', 'api/templates');
form('reserve', 'api/reservations');
form('deploy', 'api/machines');
for (const sample of document.querySelectorAll('[data-sample]')) {
  sample.addEventListener('click', () => act(() => call('POST', `api/samples/${sample.dataset.sample}`)));
}

// An upload as the UI of a cloud does it: the server signs, the file goes straight to the storage host.
const upload = document.getElementById('upload');
const chosen = document.getElementById('chosen');
const uploadState = document.getElementById('upload-state');
const drop = document.getElementById('drop');
const sent = document.getElementById('sent');
const formats = { qcow2: 'QCOW2', img: 'QCOW2', raw: 'RAW', vhd: 'VHD', vmdk: 'VMDK', ova: 'OVA', iso: 'ISO' };
let file = null;
let request = null;

function choose(picked) {
  if (!picked || request) return;
  file = picked;
  chosen.textContent = `${file.name}, ${size(file.size)}`;
  // What a compressed file is compressed with says nothing of the image.
  const ends = file.name.toLowerCase().replace(/\.(gz|bz2|xz|zip|zst)$/, '').split('.');
  upload.elements.format.value = formats[ends.at(-1)] ?? upload.elements.format.value;
  upload.querySelector('button').disabled = false;
}

function post({ url, headers }) {
  return new Promise((resolve, reject) => {
    request = new XMLHttpRequest();
    request.open('POST', url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total }) => {
      sent.value = loaded / total;
      uploadState.textContent = loaded < total ? `${size(loaded)} of ${size(total)} sent` : 'all is sent, the storage host checks and installs it';
    };
    request.onload = () => {
      if (request.status === 200) return resolve();
      let why = `${request.status} ${request.statusText}`;
      try { why = JSON.parse(request.responseText).message; } catch { /* no words of ours */ }
      return reject(new Error(why));
    };
    request.onerror = () => reject(new Error('the connection to the storage host broke'));
    request.onabort = () => reject(new Error('cancelled'));
    const body = new FormData();
    body.append('files[]', file);
    request.send(body);
  });
}

upload.addEventListener('submit', async (event) => {
  event.preventDefault();
  const submit = upload.querySelector('button');
  const cancel = document.getElementById('cancel');
  submit.disabled = true;
  [sent.hidden, cancel.hidden] = [false, false];
  sent.value = 0;
  uploadState.className = 'hint';
  uploadState.textContent = 'asking the server for a place';
  try {
    const { format, kind } = Object.fromEntries(new FormData(upload));
    await post(await call('POST', 'api/uploads', { name: file.name.slice(0, 60), format, kind }));
    uploadState.textContent = `${file.name} is uploaded`;
  } catch (failure) {
    uploadState.textContent = `${file.name} is not uploaded: ${failure.message}`;
    uploadState.className = 'hint bad';
  }
  request = null;
  submit.disabled = false;
  [sent.hidden, cancel.hidden] = [true, true];
});
document.getElementById('cancel').addEventListener('click', () => request?.abort());
document.getElementById('file').addEventListener('change', (event) => choose(event.target.files[0]));
for (const kind of ['dragenter', 'dragover', 'dragleave', 'drop']) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle('over', kind.startsWith('drage') || kind === 'dragover');
    if (kind === 'drop') choose(event.dataTransfer.files[0]);
  });
}
// A file that misses the field must not replace the page.
for (const kind of ['dragover', 'drop']) addEventListener(kind, (event) => event.preventDefault());

// The row of a running download does change every second.
let pressed = false;
addEventListener('pointerdown', () => { pressed = true; });
for (const end of ['pointerup', 'pointercancel']) addEventListener(end, () => { pressed = false; });

async function loop() {
  try {
    if (!pressed) await refresh();
    if (error.dataset.lost) { error.hidden = true; delete error.dataset.lost; }
  } catch {
    error.textContent = 'quickcloud dev does not answer';
    error.dataset.lost = 'yes';
    error.hidden = false;
  }
  setTimeout(loop, 1000);
}
loop();
