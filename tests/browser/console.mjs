// Opens a console link in a headless Chromium and tells what the user sees, as one line of JSON.
//
//   node console.mjs --url URL [--expect-state connected|failed|closed] [--expect-reason TEXT]
//                    [--expect-pixels "8,8,ff0000 24,8,00ff00" | --expect-colours 2]
//                    [--may-complain TEXT]… [--type TEXT] [--paste TEXT [--layout NAME]] [--keep MS] [--screenshot FILE.png]
//                    [--device "iPhone 13"] [--scheme light|dark] [--locale de-DE] [--tap-type TEXT] [--accessible]
//                    [--expect-bar TEXT] [--expect-return] [--expect-replay] [--tools] [--expect-notice TEXT]
//                    [--reconnect] [--insecure] [--timeout MS]
//
// --expect-return: the connection is lost while the page looks, and it comes back by itself.
// --expect-replay: a recording is shown, goes forward to its end and back to its beginning.
// --tools: every button of the bar and its panels does what it says.
// --reconnect: the console ends while the page looks, and the button of the banner brings it back.
// --insecure: a certificate that nobody knows is taken.
// --accessible: axe-core finds nothing serious, with each panel open; the keyboard alone leaves the screen.
//
// Exit status 0 when every expectation was met, else 1; the JSON says which was not. The browser
// is /usr/bin/chromium or the one named by CHROMIUM.

import { parseArgs } from 'node:util';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { chromium, devices } from 'playwright-core';

const { values: options } = parseArgs({
    options: {
        url: { type: 'string' },
        'expect-state': { type: 'string', default: 'connected' },
        'expect-reason': { type: 'string' },
        'expect-pixels': { type: 'string' },
        'expect-colours': { type: 'string' },
        type: { type: 'string' },
        paste: { type: 'string' },
        layout: { type: 'string', default: 'us' },
        device: { type: 'string' },
        scheme: { type: 'string', default: 'dark' },
        locale: { type: 'string', default: 'en-US' },
        'tap-type': { type: 'string' },
        accessible: { type: 'boolean', default: false },
        'expect-bar': { type: 'string' },
        'expect-return': { type: 'boolean', default: false },
        'expect-replay': { type: 'boolean', default: false },
        'expect-notice': { type: 'string' },
        tools: { type: 'boolean', default: false },
        reconnect: { type: 'boolean', default: false },
        insecure: { type: 'boolean', default: false },
        keep: { type: 'string', default: '0' },
        'may-complain': { type: 'string', multiple: true, default: [] },
        screenshot: { type: 'string' },
        timeout: { type: 'string', default: '30000' },
    },
});

const timeout = Number(options.timeout);
const result = { ok: false, failures: [] };
const expect = (met, text) => {
    if (!met) {
        result.failures.push(text);
    }
};

/** Colours of the screen's canvas at some points, and how many different ones a raster of it has. */
function look(page, points) {
    return page.evaluate((wanted) => {
        const canvas = document.querySelector('#screen canvas');
        if (!canvas || canvas.width === 0) {
            return null;
        }
        const { data, width, height } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        const colour = (x, y) => {
            const at = (y * width + x) * 4;
            return [...data.slice(at, at + 3)].map((value) => value.toString(16).padStart(2, '0')).join('');
        };
        const colours = new Set();
        for (let y = 0; y < height; y += 3) {
            for (let x = 0; x < width; x += 3) {
                colours.add(colour(x, y));
            }
        }
        return { width, height, colours: colours.size, points: wanted.map(([x, y]) => colour(x, y)) };
    }, points);
}

async function watchPixels(page) {
    const points = (options['expect-pixels'] ?? '').split(' ').filter(Boolean).map((point) => {
        const [x, y, colour] = point.split(',');
        return { x: Number(x), y: Number(y), colour };
    });
    const colours = Number(options['expect-colours'] ?? 0);
    const deadline = Date.now() + timeout;
    let seen = null;
    for (;;) {
        seen = await look(page, points.map(({ x, y }) => [x, y]));
        const right = seen !== null && seen.colours >= colours
            && points.every(({ colour }, i) => seen.points[i] === colour);
        if (right || Date.now() > deadline) {
            expect(right, `pixels: saw ${JSON.stringify(seen)}`);
            break;
        }
        await page.waitForTimeout(100);
    }
    result.screen = seen;
}

/** A recording: to the end, paused, back to the beginning. */
async function checkReplay(page) {
    await page.waitForSelector('#replay:not([hidden])', { timeout });
    const place = page.locator('#replay-place');
    const length = Number(await place.getAttribute('max'));
    expect(length > 0, `length ${length}`);
    const go = async (to) => {
        await place.fill(String(to));
        await place.dispatchEvent('change');
    };
    const isAt = (from, to) => page.waitForFunction(([low, high]) => {
        const at = Number(document.getElementById('replay-place').value);
        return document.body.dataset.state === 'connected' && at >= low && at <= high;
    }, [from, to], { timeout }).catch(() => expect(false, `not between ${from} and ${to}`));
    await go(length);
    await isAt(length - 100, length);
    const before = await page.evaluate(() => globalThis.states.length);
    await go(0);
    // Pictures build on what was before: the page comes back.
    await page.waitForFunction((count) => globalThis.states.slice(count).includes('returning'), before, { timeout })
        .catch(() => expect(false, 'it did not go back'));
    await isAt(0, Math.max(length - 100, 1));
    await page.click('#replay-pause');
    await page.waitForFunction(() => document.getElementById('replay-pause').textContent === 'Play', null, { timeout });
    await checkShown(page, 'recording');
    result.replay = await page.textContent('#replay-time');
}

/** What axe-core finds serious of what is shown, and whether it fits. */
async function checkShown(page, what) {
    const source = await readFile(fileURLToPath(import.meta.resolve('axe-core/axe.min.js')), 'utf8');
    await page.evaluate(source);
    const { violations } = await page.evaluate(() => globalThis.axe.run());
    const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
    for (const { id, nodes } of serious) {
        expect(false, `accessibility, ${what}: ${id}: ${nodes.map(({ html }) => html).join(' ')}`);
    }
    const wide = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
    expect(!wide, `${what}: wider than the window`);
}

/** What people with assistive technology, or without a mouse, meet. */
async function checkAccess(page) {
    for (const panel of [null, 'keys', 'paste', 'view']) {
        if (panel) {
            await page.click(`#${panel}`);
        }
        await checkShown(page, panel ?? 'bar');
    }
    // Escape closes the panel; the shortcut leaves the screen, which takes every other key.
    await page.keyboard.press('Escape');
    expect(await page.evaluate(() => document.getElementById('view-panel').hidden), 'Escape leaves the panel open');
    await page.locator('#screen canvas').focus();
    await page.keyboard.press('Tab');
    expect(await page.evaluate(() => document.activeElement.tagName === 'CANVAS'), 'Tab left the screen');
    await page.keyboard.press('Control+Alt+Shift+B');
    expect(await page.evaluate(() => document.activeElement.id === 'ctrl-alt-del'), 'the shortcut does not leave the screen');
}

const isDisabled = (page, id) => page.evaluate((wanted) => document.getElementById(wanted).disabled, id);

/** Keys that browsers keep, modifiers that stay down. */
async function checkKeys(page) {
    await page.click('#ctrl-alt-del');
    await page.click('#keys');
    await page.locator('#key-buttons').getByRole('button', { name: 'Ctrl-Alt-F2', exact: true }).click();
    const ctrl = page.locator('#hold-buttons').getByRole('button', { name: 'Ctrl', exact: true });
    await ctrl.click();
    expect(await ctrl.getAttribute('aria-pressed') === 'true', 'Ctrl does not stay down');
    await page.keyboard.press('x');
    await page.click('#release-all');
    expect(await ctrl.getAttribute('aria-pressed') === 'false', 'Ctrl is not released');
}

/** A text that this keyboard lacks, and one that is stopped. */
async function checkPaste(page) {
    await page.click('#paste');
    await page.selectOption('#layout', 'us');
    await page.fill('#paste-text', 'a\u2603');
    const warning = await page.locator('#paste-warning').innerText();
    expect(warning.includes('\u2603'), `warning ${warning}`);
    await page.fill('#paste-text', 'z'.repeat(1000));
    expect(await page.locator('#paste-warning').isHidden(), 'the warning stays');
    await page.click('#paste-type');
    await page.waitForFunction(() => document.getElementById('paste-bar').value > 0, null, { timeout });
    await page.click('#paste-cancel');
    await page.waitForFunction(() => document.getElementById('paste-cancel').hidden, null, { timeout });
    expect(await page.locator('#paste-text').inputValue() !== '', 'a stopped text is lost');
    await page.click('#paste-close');
}

/** How it is shown; a picture of it; watching only. */
async function checkView(page) {
    await page.click('#view');
    await page.click('#scale-actual');
    const actual = await page.evaluate(() => {
        const canvas = document.querySelector('#screen canvas');
        return canvas.getBoundingClientRect().width === canvas.width;
    });
    expect(actual, 'not at its actual size');
    const [download] = await Promise.all([page.waitForEvent('download', { timeout }), page.click('#screenshot')]);
    const picture = await readFile(await download.path());
    expect(picture.subarray(1, 4).toString() === 'PNG' && download.suggestedFilename().endsWith('.png'), 'no PNG');
    await page.click('#view-only');
    expect(await isDisabled(page, 'keys') && await isDisabled(page, 'paste'), 'who watches has buttons to type');
    await page.locator('#screen canvas').focus();
    await page.keyboard.type('unseen');
    if (await page.locator('#view-only').isHidden()) {
        await page.click('#view');
    }
    await page.click('#view-only');
    await page.keyboard.press('Escape');
}

/** The bar stays in full screen. */
async function checkFullScreen(page) {
    const is = (wanted) => page.waitForFunction((on) => (document.fullscreenElement !== null) === on, wanted, { timeout });
    await page.click('#full-screen');
    await is(true);
    expect(await page.locator('#ctrl-alt-del').isVisible(), 'no bar in full screen');
    await page.click('#full-screen');
    await is(false);
}

async function run(page) {
    const outside = [];
    const host = new URL(options.url).hostname;
    page.on('request', (request) => {
        if (/^(http|ws)/.test(request.url()) && new URL(request.url()).hostname !== host) {
            outside.push(request.url());
        }
    });
    const sockets = [];
    page.on('websocket', (socket) => {
        const { origin, pathname, hostname } = new URL(socket.url());
        sockets.push(origin + pathname);
        if (hostname !== host) {
            outside.push(origin + pathname);
        }
    });
    const complaints = [];
    page.on('pageerror', (error) => complaints.push(String(error)));
    page.on('console', (message) => {
        // What a refused console logs is the page's business and shown in its banner.
        // A page over plain HTTP is complained about by noVNC, rightly and without consequence.
        const plain = message.text().includes('requires a secure context');
        if (message.type() === 'error' && !plain && options['expect-state'] === 'connected') {
            complaints.push(message.text());
        }
    });

    await page.addInitScript(() => {
        globalThis.states = [];
        document.addEventListener('DOMContentLoaded', () => {
            new MutationObserver(() => globalThis.states.push(document.body.dataset.state))
                .observe(document.body, { attributes: true, attributeFilter: ['data-state'] });
        });
    });
    await page.goto(options.url, { timeout });
    const settled = ['connected', 'failed', 'closed'];
    await page.waitForFunction(
        (states) => states.includes(document.body.dataset.state), settled, { timeout },
    ).catch(() => {});
    if (options['expect-state'] === 'closed') {
        await page.waitForFunction(() => document.body.dataset.state === 'closed', null, { timeout }).catch(() => {});
    }
    if (options['expect-pixels'] || options['expect-colours']) {
        await watchPixels(page);
    }
    if (options['expect-return']) {
        await page.waitForFunction(() => {
            const lost = globalThis.states.indexOf('returning');
            return lost >= 0 && globalThis.states.indexOf('connected', lost) >= 0;
        }, null, { timeout }).catch(() => {});
        result.states = await page.evaluate(() => globalThis.states);
        expect(result.states.includes('returning'), `states ${result.states}`);
    }
    if (options['expect-replay']) {
        await checkReplay(page);
    }
    if (options.type) {
        await page.locator('#screen canvas').focus();
        await page.keyboard.type(options.type, { delay: 20 });
    }
    if (options.paste) {
        await page.click('#paste');
        await page.fill('#paste-text', options.paste);
        await page.selectOption('#layout', options.layout);
        await page.click('#paste-type');
        await page.waitForFunction(() => document.getElementById('paste-panel').hidden, null, { timeout });
    }
    if (options['tap-type']) {
        await page.tap('#screen canvas');
        await page.waitForFunction(() => document.activeElement.id === 'touch-input', null, { timeout });
        await page.keyboard.type(options['tap-type'], { delay: 20 });
        await page.keyboard.press('Backspace');
    }
    if (options.accessible) {
        await checkAccess(page);
    }
    if (options.tools) {
        await checkKeys(page);
        await checkPaste(page);
        await checkView(page);
        await checkFullScreen(page);
    }
    if (options['expect-notice']) {
        await page.waitForSelector('#notice:not([hidden])', { timeout });
        const notice = await page.textContent('#notice-text');
        expect(notice.includes(options['expect-notice']), `notice ${notice}`);
        expect(await page.locator('#notice-copy').isVisible(), 'no button to copy');
    }
    const banner = () => page.evaluate(() => {
        const shown = document.getElementById('banner');
        return shown.hidden ? '' : shown.innerText.replace(/\s+/g, ' ').trim();
    });
    let reason = null;
    if (options.reconnect) {
        await page.waitForFunction(() => document.body.dataset.state === 'closed', null, { timeout });
        reason = await banner();
        await page.click('#reconnect');
        await page.waitForFunction(() => document.body.dataset.state === 'connected', null, { timeout }).catch(() => {});
    }
    await page.waitForTimeout(Number(options.keep));
    result.state = await page.evaluate(() => document.body.dataset.state);
    result.bar = await page.evaluate(() => document.getElementById('bar').innerText.replace(/\s+/g, ' ').trim());
    result.name = await page.textContent('#name');
    result.title = await page.title();
    result.banner = await banner();
    result.address = page.url();
    result.outside = outside;
    result.sockets = sockets;
    result.complaints = complaints;
    if (options.screenshot) {
        await page.screenshot({ path: options.screenshot });
    }
    expect(result.state === options['expect-state'], `state ${result.state}`);
    const told = reason ?? result.banner;
    expect(!options['expect-reason'] || told.includes(options['expect-reason']), `banner ${told}`);
    expect(!options['expect-bar'] || result.bar.includes(options['expect-bar']), `bar ${result.bar}`);
    expect(outside.length === 0, 'requests to other hosts');
    const allowed = options['may-complain'];
    const others = complaints.filter((text) => !allowed.some((part) => text.includes(part)));
    expect(others.length === 0, `page errors: ${others.join('; ')}`);
    expect(!result.address.includes('token='), 'the token stays in the address bar');
}

const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    // The tests run as root in containers without user namespaces; names in .test are this machine.
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--host-resolver-rules=MAP *.test 127.0.0.1'],
});
try {
    const device = options.device ? devices[options.device] : { viewport: { width: 1000, height: 760 } };
    const { scheme: colorScheme, locale, insecure: ignoreHTTPSErrors } = options;
    await run(await browser.newPage({ ...device, colorScheme, locale, ignoreHTTPSErrors }));
} catch (error) {
    result.failures.push(String(error));
} finally {
    await browser.close();
}
result.ok = result.failures.length === 0;
process.stdout.write(`${JSON.stringify(result)}\n`);
process.exitCode = result.ok ? 0 : 1;
