// Shows the documents of /events. All text goes into text nodes, never into markup.

const byId = (id) => document.getElementById(id);

function cell(row, text, className) {
  const td = row.insertCell();
  if (text instanceof Node) td.append(text);
  else td.textContent = text ?? '–';
  if (className) td.className = className;
  return td;
}

function why(td, text) {
  if (!text) return;
  const span = document.createElement('span');
  span.className = 'why';
  span.textContent = text;
  td.append(span);
}

// Rows are made anew: nothing in them has a focus or a state.
function fill(id, items, render) {
  const section = byId(`${id}-section`);
  if (section) section.hidden = items.length === 0;
  byId(id).replaceChildren(...items.map((item) => {
    const row = document.createElement('tr');
    render(row, item);
    return row;
  }));
}

function size(bytes) {
  if (bytes == null) return '–';
  for (const unit of ['B', 'KiB', 'MiB', 'GiB', 'TiB']) {
    if (bytes < 1024 || unit === 'TiB') return `${bytes < 10 && unit !== 'B' ? bytes.toFixed(1) : Math.round(bytes)} ${unit}`;
    bytes /= 1024;
  }
}

function span(ms) {
  if (ms == null) return '–';
  const seconds = Math.floor(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

function bar(percent, label) {
  const element = document.createElement('progress');
  element.max = 100;
  element.value = percent;
  element.setAttribute('aria-label', label);
  return element;
}

const colour = (health) => ({ ready: 'ok', starting: 'warn', degraded: 'warn', stopped: 'soft' }[health] ?? 'bad');

const WARNING_DAYS = 30;
function days(until) {
  const left = (Date.parse(until) - Date.now()) / 86400000;
  return Number.isFinite(left) ? left : null;
}

function certificates(status) {
  const list = [];
  for (const role of status.roles) {
    const details = role.details ?? {};
    for (const certificate of details.certificates ?? [details.certificate]) {
      if (certificate) list.push({ role: role.role, ...certificate });
    }
  }
  for (const link of status.links) {
    if (link.certificate_expires) {
      list.push({ role: link.role, names: ['management server'], expires: link.certificate_expires, source: 'link' });
    }
  }
  return list;
}

function alarms(status) {
  const list = [];
  for (const role of status.roles) {
    const details = role.details ?? {};
    if (!['ready', 'starting', 'stopped'].includes(role.health)) list.push(`${role.role}: ${role.health}, ${role.reason ?? 'no reason given'}`);
    for (const alarm of details.dhcp?.alarms ?? []) list.push(`${role.role}: ${alarm.text}`);
    for (const note of details.notes ?? []) list.push(`${role.role}: ${note}`);
    for (const store of details.stores ?? []) {
      if (store.capacity_bytes && store.used_bytes / store.capacity_bytes > 0.9) list.push(`store ${store.url} is nearly full`);
    }
  }
  for (const certificate of certificates(status)) {
    const left = days(certificate.expires);
    if (certificate.problem) list.push(`${certificate.role}: ${certificate.problem}`);
    else if (left != null && left < WARNING_DAYS) list.push(`${certificate.role}: the certificate for ${certificate.names.join(', ')} ends within ${Math.max(0, Math.ceil(left))} days`);
  }
  return list;
}

function show(status) {
  byId('process').textContent = `version ${status.version}, ${status.state}, up for ${span(status.uptime_ms)}`;
  document.title = status.ready ? 'QuickCloud' : 'QuickCloud – not ready';
  const found = alarms(status);
  const section = byId('alarms');
  section.hidden = found.length === 0;
  section.querySelector('ul').replaceChildren(...found.map((text) => {
    const item = document.createElement('li');
    item.textContent = text;
    return item;
  }));
  fill('roles', status.roles, (row, role) => {
    const link = status.links.find((candidate) => candidate.role === role.role);
    cell(row, role.title);
    why(cell(row, role.health, colour(role.health)), role.reason);
    const server = cell(row, link ? `${link.endpoint ?? '–'} ${link.state}` : '–', link && link.state !== 'attached' ? 'warn' : '');
    why(server, link?.last_error);
    cell(row, link?.host_id);
    cell(row, link?.last_answer_ago_ms == null ? '–' : `${span(link.last_answer_ago_ms)} ago`);
    cell(row, link?.round_trip_ms == null ? '–' : `${link.round_trip_ms} ms`);
    cell(row, role.restarts);
  });
  const all = (name) => status.roles.flatMap((role) => role.details?.[name] ?? []);
  fill('consoles', all('consoles'), (row, console) => {
    cell(row, console.name || console.vm);
    cell(row, console.client);
    cell(row, `${span(console.opened_ago_ms)} ago`);
    cell(row, `${span(console.last_used_ago_ms)} ago`);
    cell(row, size(console.bytes_to_viewer));
    cell(row, console.connected === false ? 'away' : console.view_only ? 'watching' : 'typing');
  });
  const transfers = [...all('downloads'), ...all('uploads')];
  fill('transfers', transfers, (row, transfer) => {
    why(cell(row, transfer.object), transfer.url ?? transfer.file);
    why(cell(row, transfer.state, { failed: 'bad', done: 'ok', cancelled: 'soft' }[transfer.state]), transfer.text);
    cell(row, bar(transfer.percent, `${transfer.object}: ${transfer.percent} %`));
    cell(row, transfer.total_bytes ? `${size(transfer.received_bytes)} of ${size(transfer.total_bytes)}` : size(transfer.received_bytes));
    cell(row, transfer.bytes_per_second ? `${size(transfer.bytes_per_second)}/s` : '–');
  });
  fill('stores', all('stores'), (row, store) => {
    cell(row, store.url);
    why(cell(row, store.state, { ready: 'ok', opening: 'warn' }[store.state] ?? 'bad'), (store.notes ?? []).join('; '));
    const used = cell(row, store.capacity_bytes ? bar(100 * store.used_bytes / store.capacity_bytes, 'used') : '–');
    if (store.capacity_bytes) why(used, `${size(store.used_bytes)} of ${size(store.capacity_bytes)}`);
    cell(row, store.directory);
  });
  fill('dhcp', all('dhcp'), (row, dhcp) => {
    cell(row, dhcp.state, dhcp.state === 'ready' ? 'ok' : 'warn');
    cell(row, dhcp.reservations);
    cell(row, dhcp.leases);
    cell(row, dhcp.pid ? `pid ${dhcp.pid}, ${dhcp.restarts} restarts` : 'not running');
  });
  fill('certificates', certificates(status), (row, certificate) => {
    cell(row, certificate.role);
    cell(row, certificate.names.join(', '));
    const left = days(certificate.expires);
    cell(row, certificate.expires, left != null && left < WARNING_DAYS ? 'warn' : '');
    cell(row, certificate.source);
  });
}

const lost = byId('lost');
const events = new EventSource('events');
events.addEventListener('message', (event) => {
  lost.hidden = true;
  show(JSON.parse(event.data));
});
events.addEventListener('error', () => {
  lost.hidden = false;
  lost.textContent = 'The process does not answer; what stands below is old.';
});
