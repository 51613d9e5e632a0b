// Opens the dashboard in a headless Chromium and tells what the user sees, as one line of JSON.
//
//   node dashboard.mjs --url URL [--screenshot PREFIX]
//
// Looks at it on a desk and on a phone, light and dark: the roles are shown, nothing is wider than the
// screen, the page complains of nothing and asks no other host. Exit status 0 when all of it holds.

import { parseArgs } from 'node:util';
import { chromium, devices } from 'playwright-core';

const { values: options } = parseArgs({ options: { url: { type: 'string' }, screenshot: { type: 'string' } } });
const result = { ok: false, failures: [], looks: {} };
const expect = (met, text) => {
    if (!met) {
        result.failures.push(text);
    }
};

const looks = {
    desk: { viewport: { width: 1280, height: 800 }, colorScheme: 'light' },
    phone: { ...devices['iPhone 13'], colorScheme: 'dark' },
};

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] });
try {
    for (const [name, context] of Object.entries(looks)) {
        const page = await browser.newPage({ ...context, defaultBrowserType: undefined });
        const complaints = [];
        page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
        page.on('pageerror', (error) => complaints.push(String(error)));
        page.on('request', (request) => {
            if (!request.url().startsWith(options.url)) {
                complaints.push(`asks ${request.url()}`);
            }
        });
        await page.goto(options.url);
        await page.waitForSelector('#roles tr', { timeout: 15000 });
        // Live: the time that the process is up goes on without a reload.
        const up = await page.textContent('#process');
        await page.waitForFunction((before) => document.querySelector('#process').textContent !== before, up, { timeout: 15000 });
        const seen = await page.evaluate(() => ({
            roles: [...document.querySelectorAll('#roles tr')].map((row) => row.innerText.replaceAll('\t', ' ').replaceAll('\n', ' ')),
            alarms: [...document.querySelectorAll('#alarms:not([hidden]) li')].map((item) => item.textContent),
            lost: !document.querySelector('#lost').hidden,
            wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
            back: getComputedStyle(document.body).backgroundColor,
        }));
        expect(seen.wide <= 0, `${name}: wider than the screen by ${seen.wide}`);
        expect(!seen.lost, `${name}: says that the process is gone`);
        expect(complaints.length === 0, `${name}: ${complaints.join('; ')}`);
        result.looks[name] = seen;
        if (options.screenshot) {
            await page.screenshot({ path: `${options.screenshot}-${name}.png`, fullPage: true });
        }
        await page.close();
    }
    expect(result.looks.desk.back !== result.looks.phone.back, 'light and dark look alike');
} finally {
    await browser.close();
}
result.ok = result.failures.length === 0;
console.log(JSON.stringify(result));
process.exitCode = result.ok ? 0 : 1;
