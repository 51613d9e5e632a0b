// How the screen is shown, and what of it is asked for.

import { element } from './panels.js';

const MODES = ['scale-fit', 'scale-actual', 'scale-remote'];
const MEGABYTE = 1e6;

function words(bytesPerSecond) {
    return bytesPerSecond >= MEGABYTE
        ? `${(bytesPerSecond / MEGABYTE).toFixed(1)} MB/s`
        : `${(bytesPerSecond / 1000).toFixed(0)} kB/s`;
}

export function viewPanel(current, link, changed) {
    let mode = 'scale-fit';
    let watching = false;
    let forced = false;
    const settings = { quality: 6, compression: 2 };

    const apply = (rfb) => {
        rfb.scaleViewport = mode === 'scale-fit';
        rfb.resizeSession = mode === 'scale-remote';
        // Dragging moves the picture where it is larger than the window.
        rfb.clipViewport = mode === 'scale-actual' && window.matchMedia('(pointer: coarse)').matches;
        rfb.dragViewport = rfb.clipViewport;
        rfb.viewOnly = watching || forced;
        rfb.qualityLevel = settings.quality;
        rfb.compressionLevel = settings.compression;
    };
    const show = () => {
        for (const id of MODES) {
            element(id).setAttribute('aria-pressed', String(id === mode));
        }
        element('view-only').setAttribute('aria-pressed', String(watching || forced));
        element('view-only').disabled = forced;
        if (current()?.rfb) {
            apply(current().rfb);
        }
        changed();
    };
    for (const id of MODES) {
        element(id).addEventListener('click', () => {
            mode = id;
            show();
        });
    }
    element('view-only').addEventListener('click', () => {
        watching = !watching;
        show();
    });
    for (const id of ['quality', 'compression']) {
        element(id).value = settings[id];
        element(id).addEventListener('change', () => {
            settings[id] = Number(element(id).value);
            show();
        });
    }
    element('screenshot').addEventListener('click', () => {
        current().rfb.toBlob((blob) => {
            const anchor = document.createElement('a');
            anchor.href = URL.createObjectURL(blob);
            const name = element('name').textContent.replace(/[^\w.-]+/g, '_');
            const time = new Date().toISOString().slice(0, 19).replaceAll(':', '-');
            anchor.download = `${name}-${time}.png`;
            anchor.click();
            setTimeout(() => URL.revokeObjectURL(anchor.href), 10000);
        }, 'image/png');
    });
    let before = 0;
    setInterval(() => {
        const received = current()?.received ?? 0;
        element('rate').textContent = words(Math.max(0, received - before));
        before = received;
    }, 1000);

    return {
        /** Before the connection: what has to hold from the first picture on. */
        prepare(rfb) {
            rfb.background = 'transparent';
            rfb.showDotCursor = link.showDot;
            apply(rfb);
        },
        adopt: apply,
        /** The console proxy lets this viewer only watch, or does so no more. */
        forceViewOnly(on) {
            forced = on;
            show();
        },
    };
}
