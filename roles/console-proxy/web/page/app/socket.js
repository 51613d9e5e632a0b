// Opens the console's WebSocket, and keeps apart what noVNC must not see: the messages of the console
// proxy (text), the reason with which it closes, the bytes that came.

const OPEN_TIMEOUT = 15000;
/** With it the proxy speaks to the page; without it, it is a plain tunnel for the picture. */
const CONTROL = 'quickcloud.console.1';

/** A WebSocket as noVNC wants one; text messages go to `onControl` as objects. */
export class Channel {
    constructor(socket) {
        this.socket = socket;
        this.received = 0;
        this.closing = { code: 1006, reason: '' };
        this.onopen = null;
        this.onmessage = null;
        this.onclose = null;
        this.onerror = null;
        this.onControl = () => {};
        socket.addEventListener('message', (event) => this.#take(event));
        socket.addEventListener('close', (event) => {
            this.closing = { code: event.code, reason: event.reason };
            this.onclose?.(event);
        });
        socket.addEventListener('error', (event) => this.onerror?.(event));
    }

    #take(event) {
        if (typeof event.data !== 'string') {
            this.received += event.data.byteLength;
            this.onmessage?.(event);
            return;
        }
        try {
            this.onControl(JSON.parse(event.data));
        } catch (error) {
            console.error('a message of the console proxy is not understood', error);
        }
    }

    get hasControl() { return this.socket.protocol === CONTROL; }

    get protocol() { return this.socket.protocol; }

    get readyState() { return this.socket.readyState; }

    get binaryType() { return this.socket.binaryType; }

    set binaryType(type) { this.socket.binaryType = type; }

    get bufferedAmount() { return this.socket.bufferedAmount; }

    send(data) { this.socket.send(data); }

    close(code, reason) { this.socket.close(code, reason); }

    /** Tells the proxy something, when it listens. */
    tell(message) {
        if (this.hasControl && this.readyState === WebSocket.OPEN) {
            this.socket.send(JSON.stringify(message));
        }
    }
}

/** Resolves with whether it opened. */
function attempt(url, onOpen) {
    return new Promise((resolve) => {
        const socket = new WebSocket(url, [CONTROL, 'binary']);
        socket.binaryType = 'arraybuffer';
        const timer = setTimeout(() => socket.close(), OPEN_TIMEOUT);
        socket.addEventListener('open', () => {
            clearTimeout(timer);
            // At once, in the same turn: the first message must find its reader.
            onOpen(new Channel(socket));
            resolve(true);
        }, { once: true });
        socket.addEventListener('close', () => {
            clearTimeout(timer);
            resolve(false);
        }, { once: true });
    });
}

/** Tries the addresses in order; `onOpen` is called for the first that opens, which is returned. */
export async function openSocket(urls, onOpen) {
    for (const url of urls) {
        if (await attempt(url, onOpen)) {
            return url;
        }
    }
    return null;
}
