// The console page: state, banner, toolbar. The picture itself is noVNC's, the connection `session`'s.

import { keyPanel } from './keys.js';
import { readLink } from './link.js';
import { pastePanel } from './paste.js';
import { Session } from './session.js';
import { element, panels } from './panels.js';
import { replayBar } from './replay.js';
import { touchKeyboard } from './touch.js';
import { viewPanel } from './view.js';
import { language, say, translate } from './words.js';

let session = null;

function setState(state, text) {
    document.body.dataset.state = state;
    element('state-text').textContent = text;
}

/** Which buttons are of use now. */
function enable() {
    const screen = session.connected;
    const input = screen && !session.rfb.viewOnly;
    for (const button of document.querySelectorAll('.tools [data-needs]')) {
        button.disabled = button.dataset.needs === 'input' ? !input : !screen;
    }
    element('full-screen').disabled = !screen || !document.fullscreenEnabled;
    if (!input) {
        panels.close();
    }
}

/** The server's words as a sentence. */
function sentence(text) {
    return text[0].toUpperCase() + text.slice(1) + (/[.!?。！？]$/.test(text) ? '' : '.');
}

/** The end, or a pause until the user decides: says why and what can be done. */
function over({ opened, reason, advice, resumable }) {
    setState(opened ? 'closed' : 'failed', say(opened ? 'closed' : 'failed'));
    const advised = resumable || /open the console again/.test(reason)
        ? ''
        : { new_link: say('again'), retry: say('retry') }[advice] ?? '';
    element('banner-title').textContent = say(opened ? 'wasClosed' : 'notOpened');
    element('banner-text').textContent = `${sentence(reason)} ${advised}`.trim();
    element('reconnect').hidden = !resumable;
    element('banner').hidden = false;
    enable();
    if (resumable) {
        element('reconnect').focus();
    }
}

function showState(state) {
    if (state === 'connected') {
        const secure = window.location.protocol === 'https:';
        setState('connected', say(secure ? 'connected' : 'plain'));
    } else {
        setState(state, say(state));
    }
    element('banner').hidden = true;
}

/** A word of the operator or the guest, with a button to copy it. */
function notice(text, copied) {
    element('notice-text').textContent = text;
    const copy = element('notice-copy');
    copy.hidden = copied === null;
    copy.textContent = say('copy');
    copy.onclick = async () => {
        try {
            await navigator.clipboard.writeText(copied);
            copy.textContent = say('copied');
        } catch {
            // Not over plain http, or not allowed: the text is at hand in the panel.
            element('paste-text').value = copied;
            panels.open('paste-panel');
            element('paste-text').select();
        }
    };
    element('notice').hidden = false;
}

function fullScreen() {
    const button = element('full-screen');
    button.addEventListener('click', async () => {
        // The whole page, so that the bar stays.
        if (document.fullscreenElement) {
            await document.exitFullscreen();
        } else {
            await document.documentElement.requestFullscreen().catch(() => {});
        }
        session.rfb?.focus();
    });
    document.addEventListener('fullscreenchange', () => {
        button.textContent = say(document.fullscreenElement ? 'leaveFullScreen' : 'fullScreen');
    });
}

/** noVNC takes every key on the screen, so leaving it by keyboard needs one of ours. */
function keyboardWayOut() {
    window.addEventListener('keydown', (event) => {
        if (event.code === 'KeyB' && event.ctrlKey && event.altKey && event.shiftKey) {
            event.preventDefault();
            event.stopImmediatePropagation();
            document.querySelector('.tools button:not(:disabled)')?.focus();
        }
    }, { capture: true });
}

function watch(view) {
    session.addEventListener('state', ({ detail }) => showState(detail));
    session.addEventListener('over', ({ detail }) => over(detail));
    session.addEventListener('name', ({ detail }) => {
        element('name').textContent = detail || say('console');
        element('name').removeAttribute('data-say');
        document.title = detail ? `${detail} – ${say('console')}` : say('console');
    });
    session.addEventListener('opened', ({ detail: rfb }) => {
        const canvas = element('screen').querySelector('canvas');
        canvas?.setAttribute('aria-label', say('screenLabel', { shortcut: say('shortcut') }));
        canvas?.setAttribute('role', 'application');
        view.adopt(rfb);
        enable();
        rfb.focus();
    });
    session.addEventListener('viewonly', ({ detail }) => {
        view.forceViewOnly(detail);
        enable();
        if (detail) {
            notice(say('watching'), null);
        }
    });
    session.addEventListener('recorded', () => notice(say('recorded'), null));
    session.addEventListener('replay', () => {
        // It says enough that this is a recording.
        if (element('notice-text').textContent === say('watching')) {
            element('notice').hidden = true;
        }
    });
    session.addEventListener('notice', ({ detail }) => notice(`${say('message')}: ${detail}`, null));
    session.addEventListener('clipboard', ({ detail }) => notice(say('guestCopied'), detail));
    element('notice-dismiss').addEventListener('click', () => {
        element('notice').hidden = true;
        session.rfb?.focus();
    });
    element('reconnect').addEventListener('click', () => session.resume());
    element('ctrl-alt-del').addEventListener('click', () => {
        session.rfb.sendCtrlAltDel();
        session.rfb.focus();
    });
}

function start() {
    translate(document);
    document.documentElement.lang = language;
    const link = readLink(window.location);
    if (link.token === null) {
        setState('failed', say('failed'));
        element('banner-title').textContent = say('noLink');
        element('banner-text').textContent = `${say('reloaded')} ${say('again')}`;
        element('banner').hidden = false;
        return;
    }
    const view = viewPanel(() => session, link, enable);
    session = new Session(element('screen'), link, window.location, { prepare: view.prepare });
    // The token leaves address bar and history; it is of no use any more in a moment.
    window.history.replaceState(null, '', window.location.pathname);
    panels.start(() => session.rfb?.focus());
    keyPanel(() => session.rfb);
    pastePanel(session);
    touchKeyboard(() => session.rfb);
    fullScreen();
    keyboardWayOut();
    replayBar(session);
    watch(view);
    session.open();
}

start();
