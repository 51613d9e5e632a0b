// Uploads files through the page of the storage host in a headless Chromium, and tells what the user
// sees, one object for each scenario in one line of JSON.
//
//   node upload.mjs SCENARIOS.json [SCREENSHOT.png]
//
// Each scenario: { url, order, file, how: "choose" | "drop", expect, refused, slow, broken,
// reload, cancel, accessible, scheme, device }
//   order       text of the first field; by the fragment of the URL when by_fragment is set
//   expect      what the last line of the page must hold
//   refused     the file cannot be started, and the page says this of it
//   slow        bytes in each second
//   broken      the connection breaks once: the page says so and goes on
//   reload      the page is opened anew once this much of the file is sent (0 to 1), and the file
//               chosen again
//   cancel      "Cancel" is pressed then
//
// Exit status 0 when every expectation was met, else 1. The browser is /usr/bin/chromium or the one
// named by CHROMIUM.

import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium, devices } from 'playwright-core';

const TIMEOUT = 20_000;

/** What people with assistive technology, or without a mouse, meet. */
async function checkAccess(page, expect, when) {
    const source = await readFile(fileURLToPath(import.meta.resolve('axe-core/axe.min.js')), 'utf8');
    await page.evaluate(source);
    const { violations } = await page.evaluate(() => globalThis.axe.run());
    for (const { id, impact, nodes } of violations) {
        const serious = impact === 'serious' || impact === 'critical';
        expect(!serious, `accessibility, ${when}: ${id}: ${nodes.map(({ html }) => html).join(' ')}`);
    }
    const wide = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
    expect(!wide, `${when}: wider than the window`);
}

async function give(page, scenario) {
    if (!scenario.by_fragment) {
        await page.fill('#order', scenario.order);
    }
    if (scenario.how === 'drop') {
        const bytes = (await readFile(scenario.file)).toString('base64');
        const transfer = await page.evaluateHandle(([text, name]) => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const dropped = new DataTransfer();
            dropped.items.add(new File([bytes], name));
            return dropped;
        }, [bytes, basename(scenario.file)]);
        await page.dispatchEvent('#drop', 'dragenter', { dataTransfer: transfer });
        await page.dispatchEvent('#drop', 'drop', { dataTransfer: transfer });
    } else {
        await page.setInputFiles('#file', scenario.file);
    }
    await page.waitForFunction((name) => document.getElementById('chosen').textContent.includes(name),
        basename(scenario.file), { timeout: TIMEOUT });
}

const sent = (page, part) => page.waitForFunction(
    (least) => document.getElementById('bar').value >= least, part, { timeout: TIMEOUT, polling: 20 });

async function slowDown(page, uploadThroughput) {
    const session = await page.context().newCDPSession(page);
    await session.send('Network.enable');
    await session.send('Network.emulateNetworkConditions',
        { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput });
    return session;
}

async function play(browser, scenario) {
    const result = { ok: false, failures: [] };
    const expect = (met, text) => {
        if (!met) {
            result.failures.push(text);
        }
    };
    const device = scenario.device ? devices[scenario.device] : { viewport: { width: 900, height: 760 } };
    const page = await browser.newPage({ ...device, colorScheme: scenario.scheme ?? 'dark', ignoreHTTPSErrors: true });
    const complaints = [];
    page.on('pageerror', (error) => complaints.push(String(error)));
    page.on('dialog', (dialog) => dialog.accept());
    const fragment = scenario.by_fragment ? `#${encodeURIComponent(scenario.order)}` : '';
    await page.goto(scenario.url + fragment, { timeout: TIMEOUT });
    expect(page.url() === scenario.url, `the order stays in the address bar: ${page.url()}`);
    await give(page, scenario);
    result.chosen = await page.textContent('#chosen');
    result.order = await page.textContent('#order-state');
    if (scenario.accessible) {
        await checkAccess(page, expect, 'before');
    }
    if (scenario.refused) {
        expect(await page.isDisabled('#start'), 'the upload can be started');
        const said = `${result.order} ${result.chosen}`;
        expect(said.includes(scenario.refused), `the page says ${said}`);
    } else {
        const session = scenario.slow ? await slowDown(page, scenario.slow) : null;
        // By the keyboard alone.
        await page.focus('#start');
        await page.keyboard.press('Enter');
        if (scenario.broken) {
            await page.waitForFunction(() => document.getElementById('state').textContent.includes('Going on in'),
                null, { timeout: TIMEOUT });
        }
        if (scenario.reload) {
            await sent(page, scenario.reload);
            // In this order: at full speed it would be over before.
            await page.reload();
            await session.detach();
            await give(page, scenario);
            await page.click('#start');
        }
        if (scenario.cancel) {
            await sent(page, scenario.cancel);
            if (scenario.accessible) {
                await checkAccess(page, expect, 'while it is sent');
            }
            await page.click('#cancel');
        }
        await page.waitForFunction(() => document.getElementById('cancel').hidden, null, { timeout: TIMEOUT });
        await page.waitForFunction((text) => document.getElementById('state').textContent.includes(text),
            scenario.expect, { timeout: 5_000 }).catch(() => {});
        result.state = await page.textContent('#state');
        result.numbers = await page.textContent('#numbers');
        expect(result.state.includes(scenario.expect), `the page says ${result.state}`);
        if (scenario.accessible) {
            await checkAccess(page, expect, 'after');
        }
    }
    expect(complaints.length === 0, `page errors: ${complaints.join('; ')}`);
    if (process.argv[3]) {
        await page.screenshot({ path: process.argv[3], fullPage: true });
    }
    await page.close();
    result.ok = result.failures.length === 0;
    return result;
}

const scenarios = JSON.parse(await readFile(process.argv[2], 'utf8'));
const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    // The tests run as root in containers without user namespaces; names in .test are this machine.
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--host-resolver-rules=MAP *.test 127.0.0.1'],
});
const results = [];
try {
    for (const scenario of scenarios) {
        results.push(await play(browser, scenario)
            .catch((error) => ({ ok: false, failures: [String(error)] })));
    }
} finally {
    await browser.close();
}
process.stdout.write(`${JSON.stringify(results)}\n`);
process.exitCode = results.every(({ ok }) => ok) ? 0 : 1;
