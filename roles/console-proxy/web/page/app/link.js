// Reads the console link as the management server writes it.
//
// The server puts token and extra text into the query without escaping them, so `+` is a plus
// sign, `=` may stand anywhere, and the extra text may even contain `&`. URLSearchParams would
// damage all of that.

/** Percent-decodes what can be decoded and leaves the rest alone. */
export function decode(text) {
    return text.replace(/(?:%[0-9a-fA-F]{2})+/g, (escapes) => {
        try {
            return decodeURIComponent(escapes);
        } catch {
            return escapes;
        }
    });
}

/** The first parameter of that name, decoded, or null. */
function parameter(query, name) {
    for (const pair of query.split('&')) {
        const at = pair.indexOf('=');
        if (at > 0 && pair.slice(0, at) === name) {
            return decode(pair.slice(at + 1));
        }
    }
    return null;
}

/** Everything the page needs of its address. */
export function readLink({ search, hash }) {
    const query = search.replace(/^\?/, '');
    const token = parameter(query, 'token');
    let extra = null;
    const at = `&${query}`.indexOf('&extra=');
    if (at >= 0) {
        // As it stands, for it may contain escapes of its own; a `#` in it cut the address in two.
        // The server writes nothing after it but, for some guests, this one parameter.
        const text = query.slice(at + 'extra='.length) + hash.replace(/^#/, '%23').replaceAll('#', '%23');
        extra = text.replace(/&guest=windows$/, '');
    }
    const port = Number.parseInt(parameter(query, 'port') ?? '', 10);
    return {
        token: token ? token.replaceAll(' ', '+') : null,
        extra,
        port: port > 0 && port < 65536 ? port : null,
        showDot: parameter(query, 'show_dot') === 'true',
    };
}

/** The path that a proxy put before the page's own, such as "/console". */
function prefixOf(pathname) {
    const at = pathname.lastIndexOf('/resource/noVNC/');
    return at >= 0 ? pathname.slice(0, at) : pathname.replace(/\/[^/]*$/, '');
}

/**
 * The WebSocket addresses to try, best first: next to the page, which is known to be reachable,
 * then the port that the link names. A page below a prefix came through a proxy, and who listens on
 * other ports of that host is not known: the token goes nowhere else.
 */
export function socketUrls(link, location) {
    const secure = location.protocol === 'https:';
    let query = 'token=' + encodeURIComponent(link.token);
    if (link.extra !== null) {
        query += '&extra=' + link.extra;
    }
    const prefix = prefixOf(location.pathname);
    const own = `${secure ? 'wss' : 'ws'}://${location.host}${prefix}/websockify?${query}`;
    const ownPort = location.port || (secure ? '443' : '80');
    if (prefix !== '' || link.port === null || String(link.port) === ownPort) {
        return [own];
    }
    const scheme = secure || link.port === 8443 ? 'wss' : 'ws';
    return [own, `${scheme}://${location.hostname}:${link.port}/websockify?${query}`];
}
