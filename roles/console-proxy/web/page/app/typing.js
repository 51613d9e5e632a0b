// A text as key events, for the guest's keyboard.

import KeyTable from '../../novnc/core/input/keysym.js';
import keysyms from '../../novnc/core/input/keysymdef.js';
import XtScancode from '../../novnc/core/input/xtscancodes.js';
import { strokes } from './layouts.js';

const SHIFT = { keysym: KeyTable.XK_Shift_L, code: 'ShiftLeft' };
const ALT_GR = { keysym: KeyTable.XK_ISO_Level3_Shift, code: 'AltRight' };
const PLAIN = { '\n': KeyTable.XK_Return, '\t': KeyTable.XK_Tab, '\b': KeyTable.XK_BackSpace };

/** Longest text, in characters; a longer one belongs into a file. */
export const LONGEST = 8000;

/** The characters of a text with one kind of line end and composed accents. */
export function characters(text) {
    return [...text.replaceAll('\r\n', '\n').replaceAll('\r', '\n').normalize('NFC')];
}

/** The characters of a text that are not on that keyboard, each once. */
export function missing(layout, text) {
    const absent = characters(text).filter((character) => strokes(layout, character) === null);
    return [...new Set(absent)];
}

function keysymOf(character) {
    return PLAIN[character] ?? keysyms.lookup(character.codePointAt(0));
}

/**
 * One character as events { down, keysym, code }. `positions`: the screen takes key positions. One
 * that goes by symbols gets the character itself, with Shift where the keyboard wants it; so does
 * any screen for what is not on the keyboard, which some understand.
 */
export function eventsOf(layout, character, positions) {
    const path = strokes(layout, character);
    const keysym = keysymOf(character);
    const bySymbol = path === null || (!positions && (path.length > 1 || path[0].altgr));
    if (bySymbol) {
        return [{ down: true, keysym, code: null }, { down: false, keysym, code: null }];
    }
    return path.flatMap((stroke) => {
        const held = [...(stroke.shift ? [SHIFT] : []), ...(stroke.altgr ? [ALT_GR] : [])];
        const key = { keysym: keysymOf(stroke.character), code: stroke.code };
        return [
            ...held.map((modifier) => ({ down: true, ...modifier })),
            { down: true, ...key },
            { down: false, ...key },
            ...held.toReversed().map((modifier) => ({ down: false, ...modifier })),
        ];
    });
}

/** The scan code of a key as RFB has it: the prefix of extended keys is the high bit. */
function scanCode(code) {
    const known = XtScancode[code] ?? 0;
    return known >> 8 === 0xe0 ? (known & 0x7f) | 0x80 : known;
}

/** A whole text as the console proxy takes it: [down, keysym, scan code]. */
export function textEvents(layout, text, positions) {
    return characters(text).flatMap((character) => eventsOf(layout, character, positions))
        .map(({ down, keysym, code }) => [down ? 1 : 0, keysym, positions && code ? scanCode(code) : 0]);
}
