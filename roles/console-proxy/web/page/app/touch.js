// The keyboard of phones: they only show one for a text field, and tell what was written, not keys.

import KeyTable from '../../novnc/core/input/keysym.js';
import { layoutOf } from './layouts.js';
import { element } from './panels.js';
import { eventsOf } from './typing.js';

// Something to delete, so that the delete key of an empty field is noticed.
const FILLING = '\u200b'.repeat(64);

export function touchKeyboard(screen) {
    const [field, button] = ['touch-input', 'keyboard'].map(element);
    const layout = layoutOf(navigator.language ?? 'en');
    const coarse = window.matchMedia('(pointer: coarse)');
    let wanted = coarse.matches;
    const reset = () => {
        field.value = FILLING;
        field.setSelectionRange(FILLING.length, FILLING.length);
    };
    const show = () => {
        button.setAttribute('aria-pressed', String(wanted));
        if (wanted) {
            reset();
            field.focus({ preventScroll: true });
        } else {
            field.blur();
        }
    };
    button.setAttribute('aria-pressed', String(wanted));
    button.addEventListener('click', () => {
        wanted = !wanted;
        show();
    });
    // A tap gives the keys to noVNC's canvas, which opens no keyboard.
    element('screen').addEventListener('pointerup', (event) => {
        if (wanted && event.pointerType === 'touch' && screen() !== null) {
            setTimeout(show, 0);
        }
    });
    field.addEventListener('input', (event) => {
        const rfb = screen();
        if (rfb === null) {
            return;
        }
        const [before, after] = [field.dataset.before ?? FILLING, field.value];
        let same = 0;
        while (same < before.length && same < after.length && before[same] === after[same]) {
            same++;
        }
        for (let gone = before.length; gone > same; gone--) {
            rfb.sendKey(KeyTable.XK_BackSpace, 'Backspace');
        }
        for (const character of after.slice(same)) {
            for (const { down, keysym, code } of eventsOf(layout, character, false)) {
                rfb.sendKey(keysym, code, down);
            }
        }
        // While a word is being composed the field has to stay as it is.
        if (event.isComposing) {
            field.dataset.before = after;
        } else {
            delete field.dataset.before;
            reset();
        }
    });
    field.addEventListener('compositionend', () => {
        delete field.dataset.before;
        reset();
    });
}
