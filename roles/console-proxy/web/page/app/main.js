// The console page: state, banner, toolbar. The picture itself is noVNC's.

import RFB from '../core/rfb.js';
import { readLink, socketUrls } from './link.js';
import { openSocket } from './socket.js';
import { typeText } from './typing.js';

const element = (id) => document.getElementById(id);
const AGAIN = 'Open the console again from the page of the virtual machine; each link works once.';

let rfb = null;
let over = false;

function setState(state, text) {
    document.body.dataset.state = state;
    element('state-text').textContent = text;
}

/** The end of it all: says why. */
function end(state, title, text) {
    if (over) {
        return;
    }
    over = true;
    setState(state, state === 'failed' ? 'Not connected' : 'Disconnected');
    element('banner-title').textContent = title;
    element('banner-text').textContent = text;
    element('banner').hidden = false;
    for (const button of document.querySelectorAll('.tools button')) {
        button.disabled = true;
    }
    element('paste-panel').hidden = true;
}

/** The server's words as a sentence, and what to do unless they say it. */
function advise(text) {
    const sentence = text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.');
    return text.includes('open the console again') ? sentence : `${sentence} ${AGAIN}`;
}

function attach(socket, link) {
    let refusal = '';
    let connected = false;
    let closing = { code: 0, reason: '' };
    socket.addEventListener('close', (event) => {
        closing = { code: event.code, reason: event.reason };
    });
    rfb = new RFB(element('screen'), socket, { shared: true });
    rfb.background = 'transparent';
    rfb.scaleViewport = true;
    rfb.showDotCursor = link.showDot;
    rfb.addEventListener('connect', () => {
        connected = true;
        const secure = window.location.protocol === 'https:';
        setState('connected', secure ? 'Connected' : 'Connected, not encrypted');
        for (const button of document.querySelectorAll('.tools button')) {
            button.disabled = false;
        }
        element('full-screen').disabled = !document.fullscreenEnabled;
        rfb.focus();
    });
    rfb.addEventListener('desktopname', (event) => {
        const name = event.detail.name.trim();
        element('name').textContent = name || 'Console';
        document.title = name ? `${name} – console` : 'Console';
    });
    rfb.addEventListener('securityfailure', (event) => {
        refusal = event.detail.reason ?? '';
    });
    rfb.addEventListener('credentialsrequired', () => {
        refusal = 'the screen asks for a password that the console proxy should have given';
        rfb.disconnect();
    });
    rfb.addEventListener('clipboard', (event) => {
        element('paste-text').value = event.detail.text;
    });
    rfb.addEventListener('disconnect', () => {
        // The close frame's event may come after noVNC's.
        setTimeout(() => {
            const reason = refusal.trim() || closing.reason.trim();
            if (connected) {
                const text = reason || 'the connection to the console proxy was lost';
                end('closed', 'The console was closed.', advise(text));
            } else {
                const text = reason || 'the console proxy closed the connection without a reason';
                end('failed', 'The console could not be opened.', advise(text));
            }
        }, 0);
    });
}

function toolbar() {
    element('ctrl-alt-del').addEventListener('click', () => {
        rfb.sendCtrlAltDel();
        rfb.focus();
    });
    element('scale').addEventListener('click', () => {
        rfb.scaleViewport = !rfb.scaleViewport;
        element('scale').setAttribute('aria-pressed', String(rfb.scaleViewport));
        rfb.focus();
    });
    element('full-screen').addEventListener('click', async () => {
        if (document.fullscreenElement) {
            await document.exitFullscreen();
        } else {
            await element('screen').requestFullscreen().catch(() => {});
        }
        rfb.focus();
    });
    const panel = element('paste-panel');
    const show = (visible) => {
        panel.hidden = !visible;
        element('paste').setAttribute('aria-expanded', String(visible));
        if (visible) {
            element('paste-text').focus();
        } else {
            rfb.focus();
        }
    };
    element('paste').addEventListener('click', () => show(panel.hidden));
    element('paste-close').addEventListener('click', () => show(false));
    element('paste-clipboard').addEventListener('click', () => {
        rfb.clipboardPasteFrom(element('paste-text').value);
        show(false);
    });
    element('paste-type').addEventListener('click', async () => {
        const text = element('paste-text').value;
        const progress = element('paste-progress');
        element('paste-type').disabled = true;
        await typeText(rfb, text, (share) => {
            progress.textContent = `${Math.round(share * 100)} %`;
        }, () => over);
        progress.textContent = '';
        element('paste-type').disabled = false;
        if (!over) {
            show(false);
        }
    });
}

async function start() {
    const link = readLink(window.location);
    if (link.token === null) {
        end('failed', 'This page has no console link.', `It may have been reloaded. ${AGAIN}`);
        return;
    }
    toolbar();
    setState('connecting', 'Connecting');
    const urls = socketUrls(link, window.location);
    // The token leaves address bar and history; it is of no use any more in a moment.
    window.history.replaceState(null, '', window.location.pathname);
    if (!await openSocket(urls, (socket) => attach(socket, link))) {
        end(
            'failed',
            'The console could not be opened.',
            'The console proxy cannot be reached, or turns new consoles away at the moment. '
                + 'Close other consoles and try again.',
        );
    }
}

start();
