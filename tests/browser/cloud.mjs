// Makes a machine on the page of `quickcloud dev` in a headless Chromium and follows it: known to the
// role, given its lease, forgotten. Prints one line of JSON.
//
//   node cloud.mjs --url URL --client INTERFACE
//
// INTERFACE is the other end of the demo's network, where a real client asks for an address with the
// MAC that the page shows. Exit status 0 when all of it holds.

import { execFileSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';

const { values: options } = parseArgs({ options: { url: { type: 'string' }, client: { type: 'string' } } });
const result = { ok: false, failures: [], machine: null };
const name = 'from-the-page';
const timeout = 15000;

/** The page's row of the machine, or nothing. */
const row = (wanted) => {
    const rows = [...document.querySelectorAll('#machines tr')];
    const cells = rows.map((each) => [...each.cells].map((cell) => cell.textContent));
    const found = cells.find((each) => each[0] === wanted);
    return found && { state: found[1], mac: found[2], ipv4: found[3], known: found[4], leased: found[5] };
};

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] });
try {
    const page = await browser.newPage();
    page.on('pageerror', (error) => result.failures.push(String(error)));
    // The page forbids code of others, so the waiting is done here.
    const until = async (holds, what) => {
        for (const end = Date.now() + timeout; ; await page.waitForTimeout(50)) {
            const found = await page.evaluate(row, name);
            if (holds(found)) {
                return found;
            }
            if (Date.now() > end) {
                throw new Error(`not on the page: ${what}; it shows ${JSON.stringify(found)}`);
            }
        }
    };
    await page.goto(options.url);
    await page.fill('#deploy input[name=name]', name);
    await page.click('#deploy button');
    result.machine = await until((it) => it?.known === name, 'a machine that the role knows');
    const ip = (...rest) => execFileSync('ip', ['link', 'set', options.client, ...rest]);
    ip('down');
    ip('address', result.machine.mac);
    ip('up');
    const client = ['-i', options.client, '-n', '-q', '-f', '-t', '20', '-T', '1', '-s', '/bin/true'];
    execFileSync('udhcpc', client, { stdio: 'ignore' });
    await until((it) => it?.leased === 'yes', 'the lease');
    await page.click(`#machines tr:has-text("${name}") button:has-text("Expunge")`);
    await until((it) => !it, 'the end of the machine');
    result.ok = result.failures.length === 0;
} catch (error) {
    result.failures.push(String(error));
} finally {
    await browser.close();
}
console.log(JSON.stringify(result));
process.exit(result.ok ? 0 : 1);
