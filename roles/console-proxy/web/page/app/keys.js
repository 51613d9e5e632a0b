// Keys that a browser keeps for itself, and modifiers that stay down.

import KeyTable from '../../novnc/core/input/keysym.js';
import { element } from './panels.js';

const CTRL = ['Ctrl', KeyTable.XK_Control_L, 'ControlLeft'];
const ALT = ['Alt', KeyTable.XK_Alt_L, 'AltLeft'];
const SHIFT = ['Shift', KeyTable.XK_Shift_L, 'ShiftLeft'];
const SUPER = ['Win', KeyTable.XK_Super_L, 'MetaLeft'];
const ALT_GR = ['AltGr', KeyTable.XK_ISO_Level3_Shift, 'AltRight'];
const FUNCTIONS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    .map((number) => [`F${number}`, KeyTable[`XK_F${number}`], `F${number}`]);

/** Each a chord: pressed in order, released in the opposite one. */
const CHORDS = [
    [['Esc', KeyTable.XK_Escape, 'Escape']],
    [['Tab', KeyTable.XK_Tab, 'Tab']],
    [SUPER],
    [ALT, ['Tab', KeyTable.XK_Tab, 'Tab']],
    [ALT, FUNCTIONS[3]],
    [CTRL, ['C', 0x63, 'KeyC']],
    [['Print', KeyTable.XK_Print, 'PrintScreen']],
    ...FUNCTIONS.map((key) => [CTRL, ALT, key]),
];

function button(text) {
    const made = document.createElement('button');
    made.type = 'button';
    made.textContent = text;
    return made;
}

export function keyPanel(screen) {
    const held = new Map();
    for (const chord of CHORDS) {
        const made = button(chord.map(([name]) => name).join('-'));
        made.addEventListener('click', () => {
            const rfb = screen();
            chord.forEach(([, keysym, code]) => rfb.sendKey(keysym, code, true));
            chord.toReversed().forEach(([, keysym, code]) => rfb.sendKey(keysym, code, false));
        });
        element('key-buttons').append(made);
    }
    const release = () => {
        for (const [made, [, keysym, code]] of held) {
            screen()?.sendKey(keysym, code, false);
            made.setAttribute('aria-pressed', 'false');
        }
        held.clear();
    };
    for (const key of [CTRL, ALT, SHIFT, SUPER, ALT_GR]) {
        const made = button(key[0]);
        made.setAttribute('aria-pressed', 'false');
        made.addEventListener('click', () => {
            const down = !held.has(made);
            screen().sendKey(key[1], key[2], down);
            made.setAttribute('aria-pressed', String(down));
            if (down) {
                held.set(made, key);
            } else {
                held.delete(made);
            }
            screen().focus();
        });
        element('hold-buttons').append(made);
    }
    element('release-all').addEventListener('click', () => {
        release();
        // Also what the guest may believe to be down.
        for (const [, keysym, code] of [CTRL, ALT, SHIFT, SUPER, ALT_GR]) {
            screen()?.sendKey(keysym, code, false);
        }
    });
    // A tab that is left never leaves a key down.
    window.addEventListener('blur', release);
    window.addEventListener('pagehide', release);
}
