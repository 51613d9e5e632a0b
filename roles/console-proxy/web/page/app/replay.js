// The bar of a recording: where it is, pause, and going to another place.

import { element } from './panels.js';
import { say } from './words.js';

function clock(ms) {
    const seconds = Math.floor(ms / 1000);
    const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
    const shown = parts[0] > 0 ? parts : parts.slice(1);
    return shown.map((part, i) => (i > 0 ? String(part).padStart(2, '0') : String(part))).join(':');
}

export function replayBar(session) {
    const place = element('replay-place');
    const pause = element('replay-pause');
    let paused = false;
    let held = false;
    const show = (at, length) => {
        const text = `${clock(at)} / ${clock(length)}`;
        element('replay-time').textContent = text;
        place.setAttribute('aria-valuetext', text);
    };
    session.addEventListener('replay', ({ detail: { at_ms: at, length_ms: length, paused: stopped } }) => {
        paused = stopped;
        pause.textContent = say(paused ? 'play' : 'pause');
        place.max = String(length);
        if (!held) {
            place.value = String(at);
            show(at, length);
        }
        element('replay').hidden = false;
    });
    place.addEventListener('input', () => {
        held = true;
        show(Number(place.value), Number(place.max));
    });
    place.addEventListener('change', () => {
        held = false;
        session.tell({ type: 'seek', to_ms: Number(place.value) });
    });
    pause.addEventListener('click', () => session.tell({ type: 'pause', on: !paused }));
}
