// Keyboards of guests: what is pressed for a character, byte for byte. `node --test layouts.test.mjs`.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LAYOUT_NAMES, layoutOf, strokes } from '../../roles/console-proxy/web/page/app/layouts.js';
import { characters, eventsOf, missing, textEvents } from '../../roles/console-proxy/web/page/app/typing.js';

/** As "Shift+AltGr+KeyQ", strokes with a space between. */
const pressed = (layout, character) => strokes(layout, character)
    ?.map(({ code, shift, altgr }) => `${shift ? 'Shift+' : ''}${altgr ? 'AltGr+' : ''}${code}`).join(' ') ?? null;

test('characters are where the keyboards of their countries have them', () => {
    const table = {
        us: { a: 'KeyA', A: 'Shift+KeyA', '@': 'Shift+Digit2', '\\': 'Backslash', '|': 'Shift+Backslash', '"': 'Shift+Quote', 'é': null, '€': null },
        uk: { '"': 'Shift+Digit2', '@': 'Shift+Quote', '#': 'Backslash', '~': 'Shift+Backslash', '\\': 'IntlBackslash', '£': 'Shift+Digit3', '€': 'AltGr+Digit4' },
        de: { y: 'KeyZ', z: 'KeyY', 'ß': 'Minus', 'Ä': 'Shift+Quote', '@': 'AltGr+KeyQ', '€': 'AltGr+KeyE', '|': 'AltGr+IntlBackslash', '{': 'AltGr+Digit7', '^': 'Backquote Space', '`': 'Shift+Equal Space', 'é': 'Equal KeyE', '~': 'AltGr+BracketRight', '/': 'Shift+Digit7' },
        'de-ch': { 'ö': 'Semicolon', 'é': 'Shift+Semicolon', '@': 'AltGr+Digit2', '#': 'AltGr+Digit3', '[': 'AltGr+BracketLeft', '{': 'AltGr+Quote', '~': 'AltGr+Equal Space', 'Ö': 'BracketRight Shift+KeyO', '$': 'Backslash', '\\': 'AltGr+IntlBackslash' },
        fr: { a: 'KeyQ', q: 'KeyA', z: 'KeyW', m: 'Semicolon', 1: 'Shift+Digit1', 'é': 'Digit2', '@': 'AltGr+Digit0', '\\': 'AltGr+Digit8', '.': 'Shift+Comma', 'ê': 'BracketLeft KeyE', 'ë': 'Shift+BracketLeft KeyE', '|': 'AltGr+Digit6', '€': 'AltGr+KeyE' },
        be: { a: 'KeyQ', '@': 'AltGr+Digit2', '|': 'AltGr+Digit1', '{': 'AltGr+Digit9', '[': 'AltGr+BracketLeft', '-': 'Equal', '_': 'Shift+Equal', '=': 'Slash', '\\': 'AltGr+IntlBackslash', '~': 'AltGr+Slash Space' },
        es: { 'ñ': 'Semicolon', '@': 'AltGr+Digit2', '|': 'AltGr+Digit1', '\\': 'AltGr+Backquote', 'á': 'Quote KeyA', '¿': 'Shift+Equal', '[': 'AltGr+BracketLeft', '{': 'AltGr+Quote', 'ü': 'Shift+Quote KeyU' },
        it: { 'è': 'BracketLeft', 'é': 'Shift+BracketLeft', '@': 'AltGr+Semicolon', '#': 'AltGr+Quote', '\\': 'Backquote', '[': 'AltGr+BracketLeft', '{': 'Shift+AltGr+BracketLeft' },
        'pt-br': { 'ç': 'Semicolon', '/': 'IntlRo', '?': 'Shift+IntlRo', ';': 'Slash', ':': 'Shift+Slash', '[': 'BracketRight', ']': 'Backslash', '\\': 'IntlBackslash', 'ã': 'Quote KeyA', 'ê': 'Shift+Quote KeyE', '@': 'Shift+Digit2' },
        jp: { '@': 'BracketLeft', '"': 'Shift+Digit2', '\\': 'IntlYen', '_': 'Shift+IntlRo', '=': 'Shift+Minus', '*': 'Shift+Quote', ':': 'Quote', '^': 'Equal' },
        da: { 'æ': 'Semicolon', 'ø': 'Quote', '@': 'AltGr+Digit2', '|': 'AltGr+Equal', '\\': 'AltGr+IntlBackslash' },
        no: { 'ø': 'Semicolon', 'æ': 'Quote', '|': 'Backquote', '\\': 'Equal', '$': 'AltGr+Digit4' },
        sv: { 'ö': 'Semicolon', 'ä': 'Quote', '@': 'AltGr+Digit2', '\\': 'AltGr+Minus', '|': 'AltGr+IntlBackslash', '~': 'AltGr+BracketRight Space' },
        ru: { 'й': 'KeyQ', 'ё': 'Backquote', 'Ю': 'Shift+Period', '.': 'Slash', ',': 'Shift+Slash', '№': 'Shift+Digit3', a: null },
    };
    assert.deepEqual(Object.keys(table).sort(), Object.keys(LAYOUT_NAMES).sort());
    for (const [layout, keys] of Object.entries(table)) {
        for (const [character, expected] of Object.entries(keys)) {
            assert.equal(pressed(layout, character), expected, `${layout} ${character}`);
        }
    }
});

test('every keyboard with Latin letters types ASCII, or names what it lacks', () => {
    const ascii = Array.from({ length: 95 }, (_, at) => String.fromCharCode(32 + at)).join('');
    const lacking = { ru: null };
    for (const layout of Object.keys(LAYOUT_NAMES).filter((name) => !(name in lacking))) {
        assert.deepEqual(missing(layout, ascii), [], layout);
    }
    assert.equal(missing('ru', 'ls -l').join(''), 'ls');
});

test('keys go down and up in pairs, modifiers around them, by symbol or by position', () => {
    assert.deepEqual(textEvents('de', '@', true), [
        [1, 0xfe03, 0xb8], [1, 0x40, 0x10], [0, 0x40, 0x10], [0, 0xfe03, 0xb8],
    ]);
    // Who goes by symbols gets the character, and Shift where the keyboard wants it.
    assert.deepEqual(textEvents('de', '@', false), [[1, 0x40, 0], [0, 0x40, 0]]);
    assert.deepEqual(textEvents('us', 'A', false), [[1, 0xffe1, 0], [1, 0x41, 0], [0, 0x41, 0], [0, 0xffe1, 0]]);
    assert.deepEqual(textEvents('de', 'é', false), [[1, 0xe9, 0], [0, 0xe9, 0]]);
    assert.deepEqual(textEvents('us', 'ж', true), [[1, 0x6d6, 0], [0, 0x6d6, 0]]);
    assert.deepEqual(textEvents('us', '\r\n', true), [[1, 0xff0d, 0x1c], [0, 0xff0d, 0x1c]]);
    for (const layout of Object.keys(LAYOUT_NAMES)) {
        const down = new Map();
        for (const { down: pressedNow, code, keysym } of eventsOf(layout, '{', true)) {
            const key = code ?? keysym;
            assert.notEqual(down.get(key) ?? false, pressedNow, layout);
            down.set(key, pressedNow);
        }
        assert.ok([...down.values()].every((held) => !held), layout);
    }
});

test('line ends are one kind, and accents are composed', () => {
    assert.deepEqual(characters('a\r\nb\rc\nu\u0308'), ['a', '\n', 'b', '\n', 'c', '\n', 'ü']);
});

test('the keyboard is guessed from the language', () => {
    const table = { en: 'us', 'en-GB': 'uk', 'de-AT': 'de', 'de-CH': 'de-ch', 'fr-BE': 'be', 'pt-PT': 'pt-br', ja: 'jp', fi: 'sv', nb: 'no', 'zh-CN': 'us' };
    for (const [language, layout] of Object.entries(table)) {
        assert.equal(layoutOf(language), layout, language);
    }
});
