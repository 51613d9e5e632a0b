// Types a text into the virtual machine key by key.
//
// Screens of hypervisors translate key codes, not characters, so a character that needs Shift on
// a US keyboard is sent with Shift held. Characters that keyboard does not have are sent as key
// symbols alone; some servers understand them.

const PACE = 12;
const SHIFT = { keysym: 0xffe1, code: 'ShiftLeft' };

const KEYS = new Map();
const row = (codes, plain, shifted) => {
    codes.forEach((code, i) => {
        KEYS.set(plain[i], { code, shift: false });
        KEYS.set(shifted[i], { code, shift: true });
    });
};
row(['Backquote', ...[...'1234567890'].map((digit) => 'Digit' + digit), 'Minus', 'Equal'],
    '`1234567890-=', '~!@#$%^&*()_+');
const letters = [...'abcdefghijklmnopqrstuvwxyz'];
row(letters.map((letter) => 'Key' + letter.toUpperCase()), letters.join(''), letters.join('').toUpperCase());
row(['BracketLeft', 'BracketRight', 'Backslash', 'Semicolon', 'Quote', 'Comma', 'Period', 'Slash'],
    '[]\\;\',./', '{}|:"<>?');
KEYS.set(' ', { code: 'Space', shift: false });

/** The key symbol, key code and Shift of a character. */
export function keyOf(character) {
    if (character === '\n') {
        return { keysym: 0xff0d, code: 'Enter', shift: false };
    }
    if (character === '\t') {
        return { keysym: 0xff09, code: 'Tab', shift: false };
    }
    const point = character.codePointAt(0);
    const latin = (point >= 0x20 && point <= 0x7e) || (point >= 0xa0 && point <= 0xff);
    const keysym = latin ? point : 0x01000000 | point;
    return { keysym, code: null, shift: false, ...KEYS.get(character) };
}

/** Types; `onProgress` gets the share done, `isOver` ends it early. */
export async function typeText(rfb, text, onProgress, isOver) {
    const characters = [...text.replaceAll('\r\n', '\n').replaceAll('\r', '\n')];
    for (const [index, character] of characters.entries()) {
        if (isOver()) {
            return;
        }
        const { keysym, code, shift } = keyOf(character);
        if (shift) {
            rfb.sendKey(SHIFT.keysym, SHIFT.code, true);
        }
        rfb.sendKey(keysym, code, true);
        rfb.sendKey(keysym, code, false);
        if (shift) {
            rfb.sendKey(SHIFT.keysym, SHIFT.code, false);
        }
        onProgress((index + 1) / characters.length);
        await new Promise((resolve) => { setTimeout(resolve, PACE); });
    }
}
