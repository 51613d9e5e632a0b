// Opens a console link in a headless Chromium and tells what the user sees, as one line of JSON.
//
//   node console.mjs --url URL [--expect-state connected|failed|closed] [--expect-reason TEXT]
//                    [--expect-pixels "8,8,ff0000 24,8,00ff00" | --expect-colours 2]
//                    [--may-complain TEXT]… [--type TEXT] [--paste TEXT [--layout NAME]] [--keep MS] [--screenshot FILE.png]
//                    [--device "iPhone 13"] [--scheme light|dark] [--locale de-DE] [--tap-type TEXT] [--accessible]
//                    [--expect-bar TEXT] [--expect-return] [--expect-replay] [--insecure] [--timeout MS]
//
// --expect-return: the connection is lost while the page looks, and it comes back by itself.
// --expect-replay: a recording is shown, goes forward to its end and back to its beginning.
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
    await page.waitForTimeout(Number(options.keep));
    result.state = await page.evaluate(() => document.body.dataset.state);
    result.bar = await page.evaluate(() => document.getElementById('bar').innerText.replace(/\s+/g, ' ').trim());
    result.name = await page.textContent('#name');
    result.title = await page.title();
    result.banner = await page.evaluate(() => {
        const banner = document.getElementById('banner');
        return banner.hidden ? '' : banner.innerText.replace(/\s+/g, ' ').trim();
    });
    result.address = page.url();
    result.outside = outside;
    result.sockets = sockets;
    result.complaints = complaints;
    if (options.screenshot) {
        await page.screenshot({ path: options.screenshot });
    }
    expect(result.state === options['expect-state'], `state ${result.state}`);
    expect(!options['expect-reason'] || result.banner.includes(options['expect-reason']), `banner ${result.banner}`);
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
