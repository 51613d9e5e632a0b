// Uploads a file with the signed values that the API answered. The bytes go by the tus protocol, so
// that a broken connection costs only what was under way.

const $ = (id) => document.getElementById(id);
/** How long a broken connection is tried again, and how often. */
const TRIES = 8;
const LONGEST_WAIT = 15_000;

let order = null;
let file = null;
let running = null;

/** The five values, wherever in the answer they are. */
function find(value) {
    if (value === null || typeof value !== 'object') {
        return null;
    }
    const { postURL, metadata, expires, signature } = value;
    if ([postURL, metadata, expires, signature].every((text) => typeof text === 'string' && text !== '')) {
        return { postURL, metadata, expires, signature };
    }
    for (const inner of Object.values(value)) {
        const found = find(inner);
        if (found) {
            return found;
        }
    }
    return null;
}

function parse(text) {
    const trimmed = text.trim();
    if (trimmed.startsWith('{')) {
        return find(JSON.parse(trimmed));
    }
    // As in a URL: postURL=…&metadata=…&expires=…&signature=…; a bare plus belongs to base64.
    return find(Object.fromEntries(new URLSearchParams(trimmed.replaceAll('+', '%2B'))));
}

function idOf(url) {
    const id = /\/upload\/([0-9a-f-]{36})$/i.exec(new URL(url).pathname);
    return id && id[1];
}

function say(element, text, kind = '') {
    element.textContent = text;
    element.className = kind;
}

function readOrder() {
    const text = $('order').value;
    order = null;
    if (text.trim() === '') {
        say($('order-state'), '');
    } else {
        try {
            order = parse(text);
            if (!order) {
                say($('order-state'), 'postURL, metadata, expires and signature are not all there.', 'error');
            } else if (!idOf(order.postURL)) {
                order = null;
                say($('order-state'), 'postURL is not the URL of an upload: it ends in /upload/ and an id.', 'error');
            } else if (Date.parse(order.expires) < Date.now()) {
                say($('order-state'), `These values ended at ${new Date(order.expires).toLocaleString()}: ask the API for new ones.`, 'error');
                order = null;
            } else {
                say($('order-state'), `For upload ${idOf(order.postURL)}, valid until ${new Date(order.expires).toLocaleString()}.`);
            }
        } catch (problem) {
            say($('order-state'), `This cannot be read: ${problem.message}`, 'error');
        }
    }
    refresh();
}

/** What a folder, an empty or an unreadable file is told at once, not after a try. */
async function choose(chosen) {
    file = null;
    refresh();
    if (!chosen) {
        say($('chosen'), 'Drop a file here, or choose one');
    } else if (chosen.size === 0) {
        say($('chosen'), `${chosen.name} is empty: choose another file`, 'error');
    } else if (!await isReadable(chosen)) {
        say($('chosen'), `${chosen.name} cannot be read: choose a file, not a folder`, 'error');
    } else {
        file = chosen;
        say($('chosen'), `${file.name}, ${size(file.size)}`);
        refresh();
    }
}

/** A file that changed since it was chosen cannot be read any more either. */
async function isReadable(chosen) {
    try {
        await chosen.slice(0, 1).arrayBuffer();
        return true;
    } catch {
        return false;
    }
}

function refresh() {
    $('start').disabled = running !== null || !order || !file;
    $('cancel').hidden = running === null;
    $('order').readOnly = running !== null;
    $('file').disabled = running !== null;
}

function size(bytes) {
    const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
    let at = 0;
    while (bytes >= 1024 && at < units.length - 1) {
        bytes /= 1024;
        at += 1;
    }
    return `${at === 0 ? bytes : bytes.toFixed(1)} ${units[at]}`;
}

function time(seconds) {
    const whole = Math.ceil(seconds);
    return whole < 90 ? `${whole} s` : whole < 5400 ? `${Math.ceil(whole / 60)} min` : `${(whole / 3600).toFixed(1)} h`;
}

/** An answer that says no; trying again does not help. */
class Refused extends Error {}

/** What an answer says. The host is away, or not ready yet: that passes. */
function judge(answer) {
    const { status } = answer;
    const isOurs = answer.getResponseHeader('Tus-Resumable') !== null;
    if (status >= 500 && (!isOurs || answer.getResponseHeader('Retry-After') !== null)) {
        return new Error(words(answer));
    }
    return new Refused(words(answer));
}

/** One exchange. A connection that breaks is an Error, an answer is an answer. */
function exchange(method, url, headers, body, run) {
    return new Promise((resolve, reject) => {
        const request = new XMLHttpRequest();
        request.open(method, url);
        for (const [name, value] of Object.entries({ 'Tus-Resumable': '1.0.0', ...headers })) {
            request.setRequestHeader(name, value);
        }
        request.onload = () => resolve(request);
        request.onerror = () => reject(new Error('the connection broke'));
        request.onabort = () => reject(new Refused('cancelled'));
        if (body) {
            request.upload.onprogress = (event) => run.progress(run.offset + event.loaded);
        }
        run.request = request;
        request.send(body ?? null);
    });
}

function words(answer) {
    try {
        const { message } = JSON.parse(answer.responseText);
        if (message) {
            return message;
        }
    } catch {
        // Not of this host: a proxy's page, or nothing.
    }
    return `the answer was ${answer.status} ${answer.statusText}`.trim();
}

async function create(run) {
    const { postURL, metadata, expires, signature } = order;
    const encoded = (text) => btoa(String.fromCodePoint(...new TextEncoder().encode(text)));
    // By these the host knows the file again that an earlier page began to upload.
    const known = `filename ${encoded(file.name.slice(0, 200))},modified ${encoded(String(file.lastModified))}`;
    const headers = {
        'x-signature': signature, 'x-metadata': metadata, 'x-expires': expires, 'x-post-url': postURL,
        'Upload-Length': String(file.size), 'Upload-Metadata': known,
    };
    const answer = await exchange('POST', `/upload/${idOf(postURL)}/tus`, headers, null, run);
    if (answer.status !== 201 && answer.status !== 200) {
        throw judge(answer);
    }
    run.location = answer.getResponseHeader('Location');
    run.offset = Number(answer.getResponseHeader('Upload-Offset'));
    run.from = run.offset;
}

/** Sends, and goes on where it broke off, until the object is there. */
async function send(run) {
    let known = false;
    for (let failed = 0; ;) {
        const before = run.offset;
        try {
            if (run.location === null) {
                await create(run);
            } else if (!known) {
                run.offset = await offset(run);
            }
            known = true;
            say($('state'), 'Uploading.');
            // Also with nothing left to send: the last answer says whether the object is there.
            const headers = { 'Upload-Offset': String(run.offset), 'Content-Type': 'application/offset+octet-stream' };
            const answer = await exchange('PATCH', run.location, headers, file.slice(run.offset), run);
            if (answer.status === 409) {
                throw new Error(words(answer));
            }
            if (answer.status !== 204) {
                throw judge(answer);
            }
            run.offset = Number(answer.getResponseHeader('Upload-Offset'));
            if (run.offset >= file.size) {
                return;
            }
        } catch (problem) {
            known = false;
            failed = run.offset > before ? 1 : failed + 1;
            if (problem instanceof Refused || run.cancelled || failed > TRIES) {
                throw problem;
            }
            if (!await isReadable(file)) {
                throw new Refused(`${file.name} cannot be read any more: it was changed, moved or removed`);
            }
            const wait = Math.min(LONGEST_WAIT, 500 * 2 ** failed);
            say($('state'), `Interrupted: ${problem.message}. Going on in ${time(wait / 1000)}.`);
            await run.pause(wait);
        }
    }
}

/** How much the host has. With GET a refusal comes with its reason. */
async function offset(run) {
    const answer = await exchange('GET', run.location, {}, null, run);
    if (answer.status !== 200) {
        throw judge(answer);
    }
    return Number(answer.getResponseHeader('Upload-Offset'));
}

async function start() {
    const begun = performance.now();
    running = {
        offset: 0,
        /** What an earlier page had sent. */
        from: 0,
        cancelled: false,
        request: null,
        location: null,
        /** Ends a pause early. */
        wake: () => {},
        async pause(wait) {
            if (!this.cancelled) {
                await new Promise((resolve) => {
                    this.wake = resolve;
                    setTimeout(resolve, wait);
                });
            }
            if (this.cancelled) {
                throw new Refused('cancelled');
            }
        },
        progress(bytes) {
            const seconds = (performance.now() - begun) / 1000;
            const rate = (bytes - running.from) / Math.max(seconds, 0.001);
            $('bar').value = bytes / file.size;
            const left = bytes < file.size ? `, ${time((file.size - bytes) / Math.max(rate, 1))} left` : '';
            $('numbers').textContent = `${size(bytes)} of ${size(file.size)}, ${size(rate)}/s${left}`;
            if (bytes >= file.size) {
                say($('state'), 'All is sent. The storage host checks and installs it.');
            }
        },
    };
    $('run').hidden = false;
    refresh();
    say($('state'), 'Uploading.');
    try {
        await send(running);
        $('bar').value = 1;
        say($('state'), 'Uploaded. CloudStack shows it within a minute.', 'good');
    } catch (problem) {
        say($('state'), `Not uploaded: ${problem.message}`, 'error');
    }
    running = null;
    refresh();
}

/** Ends the upload here and at the host; when that is away, its own limit of a pause does it. */
async function cancel() {
    const run = running;
    if (run === null || run.cancelled) {
        return;
    }
    run.cancelled = true;
    run.request?.abort();
    run.wake();
    if (run.location === null) {
        return;
    }
    try {
        const answer = await fetch(run.location, { method: 'DELETE', headers: { 'Tus-Resumable': '1.0.0' } });
        if (answer.status === 409) {
            say($('state'), 'Too late to cancel: the file is uploaded.', 'good');
        }
    } catch {
        say($('state'), 'Not uploaded: cancelled. The host could not be told; it ends the upload after a pause.', 'error');
    }
}

const drop = $('drop');
for (const kind of ['dragenter', 'dragover']) {
    drop.addEventListener(kind, (event) => {
        event.preventDefault();
        drop.classList.add('over');
    });
}
drop.addEventListener('dragleave', () => drop.classList.remove('over'));
drop.addEventListener('drop', (event) => {
    event.preventDefault();
    drop.classList.remove('over');
    if (running === null && event.dataTransfer.files.length > 0) {
        choose(event.dataTransfer.files[0]);
    }
});
// A file that misses the field must not replace the page.
for (const kind of ['dragover', 'drop']) {
    window.addEventListener(kind, (event) => event.preventDefault());
}
$('file').addEventListener('change', (event) => choose(event.target.files[0]));
$('order').addEventListener('input', readOrder);
$('start').addEventListener('click', start);
$('cancel').addEventListener('click', cancel);
window.addEventListener('beforeunload', (event) => {
    if (running !== null) {
        event.preventDefault();
    }
});
// The fragment never leaves the browser; it is taken out of the address bar at once.
if (location.hash.length > 1) {
    const text = location.hash.slice(1);
    $('order').value = text.startsWith('%7B') || text.startsWith('{') ? decodeURIComponent(text) : text;
    history.replaceState(null, '', location.pathname + location.search);
}
readOrder();
