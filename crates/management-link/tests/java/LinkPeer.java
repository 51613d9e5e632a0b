// A management server's end of one link, framed as the original frames it: SSLEngine, bare handshake with
// buffers that are thrown away afterwards, then a clear 4-byte header in front of each TLS record.
//
//   java LinkPeer.java CERT.pem KEY.pem need|want COUNT
//
// Prints "port N"; registers one agent, sends COUNT test.Echo commands of 1 byte to 1 MiB, checks each answer,
// waits for the goodbye. Prints "client SUBJECT", "ok COUNT BYTES", "goodbye", "end"; any fault is a stack trace.

import java.io.*;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.*;
import java.util.concurrent.*;
import java.util.zip.*;
import javax.net.ssl.*;

public final class LinkPeer {
    static final int REQUEST = 1, STOP = 2, IN_SEQUENCE = 4, FROM_SERVER = 0x20, COMPRESSED = 0x80;
    static final long NODE = 0x1e00ae00002aL;
    static final String API = "com.cloud.agent.api.";
    static final int WINDOW = 64;

    final SocketChannel channel;
    final SSLEngine engine;

    LinkPeer(SocketChannel channel, SSLEngine engine) {
        this.channel = channel;
        this.engine = engine;
    }

    /** As the original: reads whatever is there, and forgets what was read too much. */
    void handshake() throws IOException {
        int size = engine.getSession().getPacketBufferSize() + 50;
        ByteBuffer in = ByteBuffer.allocate(size), out = ByteBuffer.allocate(size);
        ByteBuffer plain = ByteBuffer.allocate(engine.getSession().getApplicationBufferSize() + 50);
        engine.beginHandshake();
        in.flip();
        while (true) {
            switch (engine.getHandshakeStatus()) {
                case NEED_UNWRAP -> {
                    SSLEngineResult result = engine.unwrap(in, plain);
                    if (result.getStatus() == SSLEngineResult.Status.BUFFER_UNDERFLOW) {
                        in.compact();
                        if (channel.read(in) < 0) throw new EOFException("in the handshake");
                        in.flip();
                    }
                }
                case NEED_WRAP -> {
                    out.clear();
                    engine.wrap(ByteBuffer.allocate(0), out);
                    write(out.flip());
                }
                case NEED_TASK -> {
                    for (Runnable task; (task = engine.getDelegatedTask()) != null; ) task.run();
                }
                default -> {
                    if (in.hasRemaining()) throw new IOException(in.remaining() + " bytes came too early");
                    return;
                }
            }
        }
    }

    void write(ByteBuffer bytes) throws IOException {
        while (bytes.hasRemaining()) channel.write(bytes);
    }

    synchronized void send(byte[] message) throws IOException {
        ByteBuffer plain = ByteBuffer.wrap(message);
        ByteBuffer packet = ByteBuffer.allocate(engine.getSession().getPacketBufferSize() + 44);
        while (plain.hasRemaining()) {
            packet.clear().putInt(0);
            SSLEngineResult result = engine.wrap(plain, packet);
            if (result.getStatus() != SSLEngineResult.Status.OK) throw new IOException(result.toString());
            packet.putInt(0, (packet.position() - 4) | (plain.hasRemaining() ? 0x10000 : 0));
            write(packet.flip());
        }
    }

    /** One message, or null at the end of the stream. */
    byte[] receive() throws IOException {
        ByteArrayOutputStream message = new ByteArrayOutputStream();
        ByteBuffer plain = ByteBuffer.allocate(engine.getSession().getApplicationBufferSize() + 50);
        int header;
        do {
            ByteBuffer head = fill(4, message.size() == 0);
            if (head == null) return null;
            header = head.getInt();
            int length = (short) header;
            if (length < 0 || length > 18000) throw new IOException("packet of " + length + " bytes");
            ByteBuffer records = fill(length, false);
            while (records.hasRemaining()) {
                plain.clear();
                SSLEngineResult result = engine.unwrap(records, plain);
                if (result.getStatus() != SSLEngineResult.Status.OK) throw new IOException(result.toString());
                message.write(plain.array(), 0, plain.position());
            }
        } while ((header & 0x10000) != 0);
        return message.toByteArray();
    }

    ByteBuffer fill(int length, boolean mayEnd) throws IOException {
        ByteBuffer bytes = ByteBuffer.allocate(length);
        while (bytes.hasRemaining()) {
            if (channel.read(bytes) < 0) {
                if (mayEnd && bytes.position() == 0) return null;
                throw new EOFException("inside a packet");
            }
        }
        return bytes.flip();
    }

    static byte[] message(int flags, long sequence, long agent, String json) throws IOException {
        byte[] text = json.getBytes(StandardCharsets.US_ASCII), body = text;
        if (text.length >= 8192) {
            ByteArrayOutputStream packed = new ByteArrayOutputStream();
            try (GZIPOutputStream gzip = new GZIPOutputStream(packed)) {
                gzip.write(text);
            }
            body = packed.toByteArray();
            flags |= COMPRESSED;
        }
        return ByteBuffer.allocate(40 + body.length).put((byte) 0).put((byte) 0).putShort((short) flags)
            .putLong(sequence).putInt(text.length).putLong(NODE).putLong(agent).putLong(agent).put(body).array();
    }

    static String text(byte[] message) throws IOException {
        ByteBuffer header = ByteBuffer.wrap(message);
        byte[] body = Arrays.copyOfRange(message, 40, message.length);
        if ((message[3] & COMPRESSED) != 0) {
            try (GZIPInputStream gzip = new GZIPInputStream(new ByteArrayInputStream(body))) {
                body = gzip.readAllBytes();
            }
        }
        if (header.getInt(12) != body.length) throw new IOException("length field " + header.getInt(12));
        for (byte b : body) if (b < 0) throw new IOException("a byte outside of ASCII");
        return new String(body, StandardCharsets.US_ASCII);
    }

    static long sequence(byte[] message) {
        return ByteBuffer.wrap(message).getLong(4);
    }

    static void expect(boolean good, String what) throws IOException {
        if (!good) throw new IOException(what);
    }

    /** Letters made from the number alone; sizes around record boundaries, most small, some 1 MiB. */
    static String letters(long number) {
        Random random = new Random(number);
        int size = switch ((int) (number % 500)) {
            case 0 -> 1 << 20;
            case 1, 2, 3, 4, 5, 6, 7, 8 -> 16384 * (1 + (int) (number % 2)) - 72 + random.nextInt(8);
            default -> 1 + random.nextInt(1 << (1 + random.nextInt(13)));
        };
        StringBuilder text = new StringBuilder(size);
        for (int i = 0; i < size; i++) text.append((char) ('a' + random.nextInt(26)));
        return text.toString();
    }

    void register() throws IOException {
        byte[] startup = receive();
        expect(startup[3] == (REQUEST | IN_SEQUENCE) && text(startup).startsWith("[{\"" + API + "Startup"), "startup");
        send(message(FROM_SERVER | IN_SEQUENCE, sequence(startup), -1, "[{\"" + API + "StartupAnswer\":{\"hostId\":0,"
            + "\"pingInterval\":60,\"result\":true,\"contextMap\":{},\"wait\":0}}]"));
        for (long ready = 1; ready <= 2; ready++) {
            send(message(REQUEST | STOP | IN_SEQUENCE | FROM_SERVER, ready, 12, "[{\"" + API + "ReadyCommand\":"
                + "{\"dcId\":1,\"hostId\":12,\"contextMap\":{},\"wait\":60}}]"));
            byte[] answer = receive();
            expect(answer[3] == (STOP | IN_SEQUENCE) && sequence(answer) == ready, "header of ReadyAnswer");
            expect(text(answer).startsWith("[{\"" + API + "ReadyAnswer\":{\"result\":true"), text(answer));
        }
    }

    /** Sends and checks at the same time, at most WINDOW commands ahead. */
    long echo(int count) throws Exception {
        Semaphore window = new Semaphore(WINDOW);
        Set<Long> open = ConcurrentHashMap.newKeySet();
        FutureTask<Void> sender = new FutureTask<>(() -> {
            for (long number = 0; number < count; number++) {
                window.acquire();
                open.add(number + 100);
                send(message(REQUEST | STOP | FROM_SERVER, number + 100, 12,
                    "[{\"test.Echo\":{\"x\":\"" + letters(number) + "\"}}]"));
            }
            return null;
        });
        Thread thread = new Thread(sender);
        thread.setDaemon(true);
        thread.start();
        long bytes = 0;
        for (int answers = 0; answers < count; answers++) {
            byte[] answer = receive();
            expect(answer != null, "the link ended");
            expect(open.remove(sequence(answer)), "answer to " + sequence(answer));
            String wanted = "\"details\":\"{\\\"x\\\":\\\"" + letters(sequence(answer) - 100) + "\\\"}\"";
            expect(text(answer).contains(wanted), "another text came back");
            bytes += answer.length;
            window.release();
        }
        sender.get();
        return bytes;
    }

    static SSLContext context(String certificate, String key) throws Exception {
        X509Certificate own;
        try (InputStream pem = Files.newInputStream(Path.of(certificate))) {
            own = (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(pem);
        }
        String base64 = Files.readString(Path.of(key)).replaceAll("-----[A-Z ]+-----|\\s", "");
        PrivateKey secret = KeyFactory.getInstance(own.getPublicKey().getAlgorithm())
            .generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(base64)));
        KeyStore store = KeyStore.getInstance("JKS");
        store.load(null, null);
        store.setKeyEntry("root", secret, new char[0], new X509Certificate[] {own});
        KeyManagerFactory keys = KeyManagerFactory.getInstance("SunX509");
        keys.init(store, new char[0]);
        X509TrustManager anyone = new X509TrustManager() {
            public void checkClientTrusted(X509Certificate[] chain, String kind) {}
            public void checkServerTrusted(X509Certificate[] chain, String kind) {}
            public X509Certificate[] getAcceptedIssuers() { return new X509Certificate[0]; }
        };
        SSLContext context = SSLContext.getInstance("TLSv1.2");
        context.init(keys.getKeyManagers(), new TrustManager[] {anyone}, new SecureRandom());
        return context;
    }

    public static void main(String[] args) throws Exception {
        SSLEngine engine = context(args[0], args[1]).createSSLEngine();
        engine.setUseClientMode(false);
        if (args[2].equals("need")) engine.setNeedClientAuth(true); else engine.setWantClientAuth(true);
        ServerSocketChannel listener = ServerSocketChannel.open().bind(new InetSocketAddress("127.0.0.1", 0));
        System.out.println("port " + ((InetSocketAddress) listener.getLocalAddress()).getPort());
        LinkPeer peer = new LinkPeer(listener.accept(), engine);
        peer.handshake();
        expect(engine.getSession().getProtocol().equals("TLSv1.2"), engine.getSession().getProtocol());
        String client = "none";
        try {
            client = ((X509Certificate) engine.getSession().getPeerCertificates()[0]).getSubjectX500Principal().getName();
        } catch (SSLPeerUnverifiedException e) {
            expect(!args[2].equals("need"), "no certificate");
        }
        System.out.println("client " + client);
        peer.register();
        int count = Integer.parseInt(args[3]);
        System.out.println("ok " + count + " " + peer.echo(count));
        byte[] goodbye = peer.receive();
        expect(ByteBuffer.wrap(goodbye).getLong(4) == -1 && goodbye[3] == 7 && text(goodbye).contains("sig.kill"), "goodbye");
        System.out.println("goodbye");
        peer.channel.shutdownOutput();
        expect(peer.receive() == null, "bytes behind the goodbye");
        System.out.println("end");
    }
}
