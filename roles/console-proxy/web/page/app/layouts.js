// Keyboards of guests: which key, with which modifiers, makes a character.
//
// Screens of hypervisors pass on key positions, not characters, so a text can only be typed by who
// knows the guest's keyboard. A layout is the characters of its keys, level by level; a combining
// mark stands for a dead key, a space for "nothing here".

/** Positions of the keys of the rows below, as browsers name them. */
const ROWS = [
    ['Backquote', ...[...'1234567890'].map((digit) => `Digit${digit}`), 'Minus', 'Equal'],
    [...[...'QWERTYUIOP'].map((letter) => `Key${letter}`), 'BracketLeft', 'BracketRight'],
    [...[...'ASDFGHJKL'].map((letter) => `Key${letter}`), 'Semicolon', 'Quote', 'Backslash'],
    ['IntlBackslash', ...[...'ZXCVBNM'].map((letter) => `Key${letter}`), 'Comma', 'Period', 'Slash'],
    ['IntlYen', 'IntlRo'],
];

const GRAVE = '\u0300';
const ACUTE = '\u0301';
const CIRCUMFLEX = '\u0302';
const TILDE = '\u0303';
const DIAERESIS = '\u0308';

/** What a dead key gives together with the space bar. */
const SPACING = new Map([
    ['`', GRAVE], ['´', ACUTE], ['^', CIRCUMFLEX], ['~', TILDE], ['¨', DIAERESIS],
]);

// Rows: plain, with Shift, with AltGr, with both. What is left out at the end is nothing.
const LAYOUTS = {
    us: [
        ['`1234567890-=', '~!@#$%^&*()_+'],
        ['qwertyuiop[]', 'QWERTYUIOP{}'],
        ['asdfghjkl;\'\\', 'ASDFGHJKL:"|'],
        [' zxcvbnm,./', ' ZXCVBNM<>?'],
    ],
    uk: [
        ['`1234567890-=', '¬!"£$%^&*()_+', '¦   €'],
        ['qwertyuiop[]', 'QWERTYUIOP{}'],
        ['asdfghjkl;\'#', 'ASDFGHJKL:@~'],
        ['\\zxcvbnm,./', '|ZXCVBNM<>?'],
    ],
    de: [
        [`${CIRCUMFLEX}1234567890ß${ACUTE}`, `°!"§$%&/()=?${GRAVE}`, '  ²³   {[]}\\'],
        ['qwertzuiopü+', 'QWERTZUIOPÜ*', '@ €        ~'],
        ['asdfghjklöä#', 'ASDFGHJKLÖÄ\''],
        ['<yxcvbnm,.-', '>YXCVBNM;:_', '|      µ'],
    ],
    'de-ch': [
        [`§1234567890'${CIRCUMFLEX}`, `°+"*ç%&/()=?${GRAVE}`, ` ¦@#  ¬|¢  ${ACUTE}${TILDE}`],
        [`qwertzuiopü${DIAERESIS}`, 'QWERTZUIOPè!', '  €       []'],
        ['asdfghjklöä$', 'ASDFGHJKLéà£', '          {}'],
        ['<yxcvbnm,.-', '>YXCVBNM;:_', '\\'],
    ],
    fr: [
        ['²&é"\'(-è_çà)=', ' 1234567890°+', '  ~#{[|`\\^@]}'],
        [`azertyuiop${CIRCUMFLEX}$`, `AZERTYUIOP${DIAERESIS}£`, '  €        ¤'],
        ['qsdfghjklmù*', 'QSDFGHJKLM%µ'],
        ['<wxcvbn,;:!', '>WXCVBN?./§'],
    ],
    be: [
        ['²&é"\'(§è!çà)-', '³1234567890°_', ' |@#  ^  {}'],
        [`azertyuiop${CIRCUMFLEX}$`, `AZERTYUIOP${DIAERESIS}*`, '  €       []'],
        ['qsdfghjklmùµ', 'QSDFGHJKLM%£', `          ${ACUTE}${GRAVE}`],
        ['<wxcvbn,;:=', '>WXCVBN?./+', `\\         ${TILDE}`],
    ],
    es: [
        ['º1234567890\'¡', 'ª!"·$%&/()=?¿', '\\|@#~ ¬'],
        [`qwertyuiop${GRAVE}+`, `QWERTYUIOP${CIRCUMFLEX}*`, '  €       []'],
        [`asdfghjklñ${ACUTE}ç`, `ASDFGHJKLÑ${DIAERESIS}Ç`, '          {}'],
        ['<zxcvbnm,.-', '>ZXCVBNM;:_'],
    ],
    it: [
        ['\\1234567890\'ì', '|!"£$%&/()=?^', '           `~'],
        ['qwertyuiopè+', 'QWERTYUIOPé*', '  €       []', '          {}'],
        ['asdfghjklòàù', 'ASDFGHJKLç°§', '         @#'],
        ['<zxcvbnm,.-', '>ZXCVBNM;:_'],
    ],
    'pt-br': [
        ['\'1234567890-=', `"!@#$%${DIAERESIS}&*()_+`, ' ¹²³£¢¬     §'],
        [`qwertyuiop${ACUTE}[`, `QWERTYUIOP${GRAVE}{`, '/?€        ª'],
        [`asdfghjklç${TILDE}]`, `ASDFGHJKLÇ${CIRCUMFLEX}}`, '           º'],
        ['\\zxcvbnm,.;', '|ZXCVBNM<>:'],
        [' /', ' ?'],
    ],
    jp: [
        [' 1234567890-^', ' !"#$%&\'() =~'],
        ['qwertyuiop@[', 'QWERTYUIOP`{'],
        ['asdfghjkl;:]', 'ASDFGHJKL+*}'],
        [' zxcvbnm,./', ' ZXCVBNM<>?'],
        ['\\\\', '|_'],
    ],
    da: [
        [`½1234567890+${ACUTE}`, `§!"#¤%&/()=?${GRAVE}`, '  @£$€ {[]} |'],
        [`qwertyuiopå${DIAERESIS}`, `QWERTYUIOPÅ${CIRCUMFLEX}`, `           ${TILDE}`],
        ['asdfghjklæø\'', 'ASDFGHJKLÆØ*'],
        ['<zxcvbnm,.-', '>ZXCVBNM;:_', '\\'],
    ],
    no: [
        ['|1234567890+\\', `§!"#¤%&/()=?${GRAVE}`, `  @£$€ {[]} ${ACUTE}`],
        [`qwertyuiopå${DIAERESIS}`, `QWERTYUIOPÅ${CIRCUMFLEX}`, `           ${TILDE}`],
        ['asdfghjkløæ\'', 'ASDFGHJKLØÆ*'],
        ['<zxcvbnm,.-', '>ZXCVBNM;:_'],
    ],
    sv: [
        [`§1234567890+${ACUTE}`, `½!"#¤%&/()=?${GRAVE}`, '  @£$€ {[]}\\'],
        [`qwertyuiopå${DIAERESIS}`, `QWERTYUIOPÅ${CIRCUMFLEX}`, `           ${TILDE}`],
        ['asdfghjklöä\'', 'ASDFGHJKLÖÄ*'],
        ['<zxcvbnm,.-', '>ZXCVBNM;:_', '|'],
    ],
    ru: [
        ['ё1234567890-=', 'Ё!"№;%:?*()_+'],
        ['йцукенгшщзхъ', 'ЙЦУКЕНГШЩЗХЪ'],
        ['фывапролджэ\\', 'ФЫВАПРОЛДЖЭ/'],
        [' ячсмитьбю.', ' ЯЧСМИТЬБЮ,'],
    ],
};

/** Names in the languages of those who have such a keyboard. */
export const LAYOUT_NAMES = {
    us: 'English (US)', uk: 'English (UK)', de: 'Deutsch', 'de-ch': 'Deutsch (Schweiz)', fr: 'Français',
    be: 'Français / Nederlands (België)', es: 'Español', it: 'Italiano', 'pt-br': 'Português (Brasil)',
    jp: '日本語', da: 'Dansk', no: 'Norsk', sv: 'Svenska / Suomi', ru: 'Русский',
};

const tables = new Map();

/** Character → { character, code, shift, altgr }. */
function table(name) {
    if (tables.has(name)) {
        return tables.get(name);
    }
    const keys = new Map([
        [' ', { character: ' ', code: 'Space', shift: false, altgr: false, level: 0 }],
        ['\n', { character: '\n', code: 'Enter', shift: false, altgr: false, level: 0 }],
        ['\t', { character: '\t', code: 'Tab', shift: false, altgr: false, level: 0 }],
    ]);
    LAYOUTS[name].forEach((levels, row) => levels.forEach((characters, level) => {
        [...characters].forEach((character, at) => {
            // The first key that makes it, with the fewest modifiers, is the one people use.
            const known = keys.get(character);
            if (character !== ' ' && (known === undefined || known.level > level)) {
                const [shift, altgr] = [(level & 1) !== 0, (level & 2) !== 0];
                keys.set(character, { character, code: ROWS[row][at], shift, altgr, level });
            }
        });
    }));
    tables.set(name, keys);
    return keys;
}

/** The strokes that make a character on that keyboard, or null. */
export function strokes(name, character) {
    const keys = table(name);
    const direct = keys.get(character);
    if (direct) {
        return [direct];
    }
    const spacing = keys.get(SPACING.get(character));
    if (spacing) {
        return [spacing, keys.get(' ')];
    }
    const [base, mark, ...more] = [...character.normalize('NFD')];
    if (mark !== undefined && more.length === 0 && keys.has(mark) && keys.has(base)) {
        return [keys.get(mark), keys.get(base)];
    }
    return null;
}

/** The layout that goes with a language of the browser. */
export function layoutOf(language) {
    const tag = language.toLowerCase();
    const exact = { 'en-gb': 'uk', 'de-ch': 'de-ch', 'fr-be': 'be', 'nl-be': 'be', 'en-us': 'us' }[tag];
    const main = tag.split('-')[0];
    const others = { ja: 'jp', pt: 'pt-br', fi: 'sv', nb: 'no', nn: 'no' };
    return exact ?? others[main] ?? (main in LAYOUTS ? main : 'us');
}
