// One console from the link to its end: opening, what the console proxy says, coming back.
//
// The proxy's side of this is described in its control module: tickets, close codes, messages.

import RFB from '../../novnc/core/rfb.js';
import { socketUrls } from './link.js';
import { openSocket } from './socket.js';
import { say } from './words.js';

/** Pauses between attempts to come back, in milliseconds; the last one repeats. */
const PAUSES = [200, 500, 1000, 2000, 4000];
/** Close codes after which the page comes back by itself. */
const COMES_BACK = new Set([1001, 1006, 4000]);
/** Close codes after which nothing but a new link helps. */
const FINAL = new Set([1002, 1003, 1007, 1009, 4001]);

const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/**
 * A console. Events: `state` (detail: connecting, connected, returning, moving), `over`
 * (detail: { opened, reason, advice, resumable }), `opened` (the RFB object), `notice`, `viewonly`,
 * `typing`, `name`, `clipboard`, `size`, `recorded`, `replay` (detail: where a recording is).
 */
export class Session extends EventTarget {
    #link;
    #location;
    #screen;
    #options;
    #ticket = '';
    #window = 0;
    #channel = null;
    #url = null;
    #typing = null;
    #until = 0;
    #round = 0;
    rfb = null;
    viewOnlyByProxy = false;

    constructor(screen, link, location, options) {
        super();
        this.#screen = screen;
        this.#link = link;
        this.#location = { protocol: location.protocol, host: location.host, hostname: location.hostname, port: location.port, pathname: location.pathname };
        this.#options = options;
    }

    get received() { return this.#channel?.received ?? 0; }

    get canTypeAtProxy() { return this.#channel?.hasControl ?? false; }

    get connected() { return this.rfb !== null; }

    #say(type, detail) {
        this.dispatchEvent(new CustomEvent(type, { detail }));
    }

    /** Opens the console for the first time. */
    async open() {
        this.#say('state', 'connecting');
        this.#url = await openSocket(socketUrls(this.#link, this.#location), (channel) => this.#attach(channel, true));
        if (this.#url === null) {
            this.#say('over', { opened: false, reason: say('unreachable'), advice: 'none', resumable: false });
        }
    }

    /** Comes back with the last ticket; tries until the window is over. */
    resume() {
        this.#until = Date.now() + this.#window;
        this.#round = 0;
        return this.#comeBack();
    }

    async #comeBack() {
        const url = `${this.#url}&resume=${encodeURIComponent(this.#ticket)}`;
        do {
            this.#say('state', 'returning');
            if (await openSocket([url], (channel) => this.#attach(channel, false))) {
                return;
            }
        } while (await this.#waited());
    }

    /** Waits for the next attempt; false when the window is over. */
    async #waited() {
        const wait = PAUSES[Math.min(this.#round, PAUSES.length - 1)];
        this.#round += 1;
        if (Date.now() + wait > this.#until) {
            this.#say('over', { opened: true, reason: say('lost'), advice: 'new_link', resumable: false });
            return false;
        }
        await pause(wait);
        return true;
    }

    #attach(channel, first) {
        this.#channel = channel;
        let advice = null;
        let refusal = '';
        let connected = false;
        channel.onControl = (message) => {
            if (message.type === 'refused') {
                advice = message.advice;
            }
            this.#heard(message);
        };
        const rfb = new RFB(this.#screen, channel, { shared: true });
        this.#options.prepare(rfb);
        rfb.addEventListener('connect', () => {
            connected = true;
            this.rfb = rfb;
            this.#say('state', 'connected');
            this.#say('opened', rfb);
        });
        rfb.addEventListener('desktopname', (event) => this.#say('name', event.detail.name.trim()));
        rfb.addEventListener('clipboard', (event) => this.#say('clipboard', event.detail.text));
        rfb.addEventListener('securityfailure', (event) => { refusal = event.detail.reason ?? ''; });
        rfb.addEventListener('credentialsrequired', () => {
            refusal = say('password');
            rfb.disconnect();
        });
        rfb.addEventListener('disconnect', () => {
            this.rfb = null;
            this.#endTyping('cancelled');
            // The close frame's event may come after noVNC's.
            setTimeout(() => this.#ended({ first, connected, advice, refusal: refusal.trim(), ...channel.closing }), 0);
        });
    }

    async #ended({ first, connected, advice, refusal, code, reason }) {
        const text = refusal || reason.trim();
        const can = this.#ticket !== '' && !FINAL.has(code) && refusal === '';
        if (connected && can && COMES_BACK.has(code)) {
            this.resume();
            return;
        }
        // On the way back: a proxy that has just started, or has lost its server, asks for patience.
        if (!first && !connected && (advice === 'retry' || (can && COMES_BACK.has(code)))) {
            this.#say('state', 'returning');
            if (await this.#waited()) {
                this.#comeBack();
            }
            return;
        }
        const opened = connected || !first;
        this.#say('over', {
            opened,
            reason: text || say(opened ? 'lost' : 'noReason'),
            advice: advice ?? (code === 4001 ? 'none' : 'new_link'),
            resumable: connected && can,
        });
    }

    /** A message of the console proxy. */
    #heard(message) {
        switch (message.type) {
            case 'opened':
                this.#window = message.window_ms;
                this.#ticket = message.ticket;
                this.viewOnlyByProxy = message.view_only;
                this.#say('viewonly', message.view_only);
                if (message.recorded) {
                    this.#say('recorded');
                }
                break;
            case 'replay':
                this.#say('replay', message);
                break;
            case 'ticket':
                this.#ticket = message.ticket;
                break;
            case 'notice':
                this.#say('notice', message.text);
                break;
            case 'view_only':
                this.viewOnlyByProxy = message.on;
                this.#say('viewonly', message.on);
                break;
            case 'moving':
                this.#say('state', 'moving');
                break;
            case 'typing':
                this.#say('typing', message);
                if (this.#typing?.id === message.id && message.state !== 'running') {
                    this.#endTyping(message.state);
                }
                break;
            default:
                // A newer proxy's.
        }
    }

    #endTyping(state) {
        this.#typing?.resolve(state);
        this.#typing = null;
    }

    /** Has the proxy type events; resolves with done, cancelled or refused. */
    type(events, paceMs) {
        const id = Math.floor(Math.random() * 0x7fffffff);
        return new Promise((resolve) => {
            this.#typing = { id, resolve };
            this.#channel.tell({ type: 'type', id, pace_ms: paceMs, events });
        });
    }

    /** Tells the proxy something. */
    tell(message) {
        this.#channel?.tell(message);
    }

    cancelTyping() {
        this.#channel?.tell({ type: 'cancel' });
    }

    /** Whether the screen takes key positions (QEMU's extension), which noVNC keeps to itself. */
    get takesPositions() {
        return this.rfb?._qemuExtKeyEventSupported === true;
    }
}
