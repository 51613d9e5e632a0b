// Text for the guest: typed key by key, or put on its clipboard.

import { layoutOf, LAYOUT_NAMES } from './layouts.js';
import { element, panels } from './panels.js';
import { characters, eventsOf, LONGEST, missing, textEvents } from './typing.js';
import { say } from './words.js';

/** Milliseconds between key events: what a slow text console of a guest still takes. */
const PACE = 12;
const REMEMBERED = 'quickcloud.console.layout';

const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

function remembered() {
    try {
        return localStorage.getItem(REMEMBERED);
    } catch {
        return null;
    }
}

function remember(layout) {
    try {
        localStorage.setItem(REMEMBERED, layout);
    } catch {
        // Private windows may not.
    }
}

/** Types from here, for console proxies that cannot. Resolves with done or cancelled. */
async function typeHere(session, layout, text, progress, isCancelled) {
    const all = characters(text);
    const total = all.length * 2;
    for (const [index, character] of all.entries()) {
        const rfb = session.rfb;
        if (rfb === null || isCancelled()) {
            return 'cancelled';
        }
        // A whole character in one turn: nothing can come between its keys.
        for (const { down, keysym, code } of eventsOf(layout, character, session.takesPositions)) {
            rfb.sendKey(keysym, code, down);
        }
        progress((index + 1) * 2, total);
        await pause(PACE);
    }
    return 'done';
}

export function pastePanel(session) {
    const [text, layout, type] = ['paste-text', 'layout', 'paste-type'].map(element);
    const [cancel, bar, words, warning] = ['paste-cancel', 'paste-bar', 'paste-progress', 'paste-warning'].map(element);
    for (const [name, title] of Object.entries(LAYOUT_NAMES)) {
        layout.append(new Option(title, name));
    }
    const wanted = remembered();
    layout.value = wanted in LAYOUT_NAMES ? wanted : layoutOf(navigator.language ?? 'en');

    const warn = () => {
        const length = characters(text.value).length;
        const absent = missing(layout.value, text.value);
        warning.textContent = length > LONGEST
            ? say('tooLong', { length, most: LONGEST })
            : say('cannotType', { list: absent.slice(0, 20).join(' ') });
        warning.hidden = length <= LONGEST && absent.length === 0;
        type.disabled = length > LONGEST;
    };
    text.addEventListener('input', warn);
    layout.addEventListener('change', () => {
        remember(layout.value);
        warn();
    });

    const progress = (done, total) => {
        bar.max = total;
        bar.value = done;
        words.textContent = say('typed', { done, total });
    };
    session.addEventListener('typing', ({ detail }) => progress(detail.done, detail.total));

    let cancelled = false;
    cancel.addEventListener('click', () => {
        cancelled = true;
        session.cancelTyping();
    });
    type.addEventListener('click', async () => {
        cancelled = false;
        type.disabled = true;
        cancel.hidden = false;
        bar.hidden = false;
        cancel.focus();
        const end = session.canTypeAtProxy
            ? await session.type(textEvents(layout.value, text.value, session.takesPositions), PACE)
            : await typeHere(session, layout.value, text.value, progress, () => cancelled);
        type.disabled = false;
        cancel.hidden = true;
        bar.hidden = true;
        words.textContent = end === 'done' ? '' : say('cancelled');
        if (end === 'done' && session.connected) {
            panels.leave();
        } else {
            text.focus();
        }
    });
    element('paste-clipboard').addEventListener('click', () => {
        session.rfb.clipboardPasteFrom(text.value);
        panels.leave();
    });
    element('paste-close').addEventListener('click', () => {
        cancelled = true;
        session.cancelTyping();
        panels.leave();
    });
}
