// Opens the console's WebSocket and keeps the reason with which it is closed, which noVNC's own
// events do not carry.

const OPEN_TIMEOUT = 15000;

/** Resolves with an open WebSocket or null. */
function attempt(url, onOpen) {
    return new Promise((resolve) => {
        const socket = new WebSocket(url, ['binary']);
        socket.binaryType = 'arraybuffer';
        const timer = setTimeout(() => socket.close(), OPEN_TIMEOUT);
        socket.addEventListener('open', () => {
            clearTimeout(timer);
            // At once, in the same turn: the first message must find its reader.
            onOpen(socket);
            resolve(socket);
        }, { once: true });
        socket.addEventListener('close', () => {
            clearTimeout(timer);
            resolve(null);
        }, { once: true });
    });
}

/** Tries the addresses in order; `onOpen` is called for the first that opens. */
export async function openSocket(urls, onOpen) {
    for (const url of urls) {
        if (await attempt(url, onOpen)) {
            return true;
        }
    }
    return false;
}
