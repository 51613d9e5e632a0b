// What the page says, in the languages it knows. English is complete; what another language lacks
// is said in English.

const WORDS = {
    en: {
        recording: 'Recording', place: 'Place in the recording', pause: 'Pause', play: 'Play',
        recorded: 'This console is recorded.',
        console: 'Console', starting: 'Starting', connecting: 'Connecting', connected: 'Connected',
        plain: 'Connected, not encrypted', closed: 'Disconnected', failed: 'Not connected',
        returning: 'Connection lost, reconnecting', moving: 'The virtual machine is moving to another host',
        keys: 'Keys', paste: 'Paste text', view: 'View', keyboard: 'Keyboard', screenshot: 'Screenshot',
        fullScreen: 'Full screen', leaveFullScreen: 'Leave full screen', fit: 'Fit window', actual: 'Actual size',
        remote: 'Match window', remoteHint: 'Ask the guest to take the size of the window', viewOnly: 'View only',
        quality: 'Picture quality', compression: 'Compression', rate: 'Received', hold: 'Hold down',
        releaseAll: 'Release all keys', textLabel: 'Text for the virtual machine', layoutLabel: 'Keyboard of the guest',
        typeIt: 'Type it', typeHint: 'Types it key by key; works in every guest', toClipboard: 'To the guest’s clipboard',
        clipboardHint: 'Needs a guest that shares its clipboard', cancel: 'Cancel', close: 'Close',
        typed: '{done} of {total} keys', cancelled: 'Cancelled; no key is down',
        cannotType: 'Not on this keyboard: {list}. It is sent as a symbol, which many guests ignore.',
        tooLong: 'Too long to be typed: {length} characters, at most {most} are possible.',
        guestCopied: 'The guest copied a text', copy: 'Copy it', copied: 'Copied', dismiss: 'Dismiss',
        notOpened: 'The console could not be opened.', wasClosed: 'The console was closed.',
        again: 'Open the console again from the page of the virtual machine; each link works once.',
        retry: 'Try it again in a moment.', reconnect: 'Reconnect', noLink: 'This page has no console link.',
        reloaded: 'It may have been reloaded.', lost: 'The connection to the console proxy was lost.',
        noReason: 'The console proxy closed the connection without a reason.',
        unreachable: 'The console proxy cannot be reached, or turns new consoles away at the moment. Close other consoles and try again.',
        watching: 'You can watch, but not type or click.', shortcut: 'Ctrl+Alt+Shift+B leaves the screen for this bar.',
        screenLabel: 'Screen of the virtual machine. {shortcut}', message: 'Message', needsJavaScript: 'The console needs JavaScript.',
        password: 'The screen asks for a password that the console proxy should have given.',
    },
    de: {
        recording: 'Aufzeichnung', place: 'Stelle der Aufzeichnung', pause: 'Pause', play: 'Abspielen',
        recorded: 'Diese Konsole wird aufgezeichnet.',
        console: 'Konsole', starting: 'Start', connecting: 'Verbindung wird aufgebaut', connected: 'Verbunden',
        plain: 'Verbunden, unverschlüsselt', closed: 'Getrennt', failed: 'Nicht verbunden',
        returning: 'Verbindung verloren, neuer Versuch', moving: 'Die virtuelle Maschine zieht auf einen anderen Host um',
        keys: 'Tasten', paste: 'Text einfügen', view: 'Ansicht', keyboard: 'Tastatur', screenshot: 'Bildschirmfoto',
        fullScreen: 'Vollbild', leaveFullScreen: 'Vollbild beenden', fit: 'An Fenster anpassen', actual: 'Originalgröße',
        remote: 'Fenstergröße übernehmen', remoteHint: 'Der Gast soll die Größe des Fensters annehmen', viewOnly: 'Nur ansehen',
        quality: 'Bildqualität', compression: 'Kompression', rate: 'Empfang', hold: 'Gedrückt halten',
        releaseAll: 'Alle Tasten loslassen', textLabel: 'Text für die virtuelle Maschine', layoutLabel: 'Tastatur des Gastes',
        typeIt: 'Eintippen', typeHint: 'Tippt Taste für Taste; geht in jedem Gast', toClipboard: 'In die Zwischenablage des Gastes',
        clipboardHint: 'Der Gast muss seine Zwischenablage teilen', cancel: 'Abbrechen', close: 'Schließen',
        typed: '{done} von {total} Tasten', cancelled: 'Abgebrochen; keine Taste ist gedrückt',
        cannotType: 'Nicht auf dieser Tastatur: {list}. Wird als Zeichen gesendet, was viele Gäste nicht beachten.',
        tooLong: 'Zu lang zum Eintippen: {length} Zeichen, höchstens {most} sind möglich.',
        guestCopied: 'Der Gast hat einen Text kopiert', copy: 'Kopieren', copied: 'Kopiert', dismiss: 'Ausblenden',
        notOpened: 'Die Konsole konnte nicht geöffnet werden.', wasClosed: 'Die Konsole wurde geschlossen.',
        again: 'Öffnen Sie die Konsole erneut auf der Seite der virtuellen Maschine; jeder Link gilt einmal.',
        retry: 'Versuchen Sie es gleich noch einmal.', reconnect: 'Neu verbinden', noLink: 'Diese Seite hat keinen Konsolen-Link.',
        reloaded: 'Vielleicht wurde sie neu geladen.', lost: 'Die Verbindung zum Konsolen-Proxy ging verloren.',
        noReason: 'Der Konsolen-Proxy hat die Verbindung ohne Angabe von Gründen beendet.',
        unreachable: 'Der Konsolen-Proxy ist nicht erreichbar oder nimmt gerade keine Konsolen an. Schließen Sie andere Konsolen und versuchen Sie es erneut.',
        watching: 'Sie können zusehen, aber nicht tippen oder klicken.', shortcut: 'Strg+Alt+Umschalt+B führt vom Bildschirm in diese Leiste.',
        screenLabel: 'Bildschirm der virtuellen Maschine. {shortcut}', message: 'Nachricht',
        password: 'Der Bildschirm fragt nach einem Passwort, das der Konsolen-Proxy hätte geben sollen.',
    },
    fr: {
        recording: 'Enregistrement', place: 'Position dans l’enregistrement', pause: 'Pause', play: 'Lecture',
        recorded: 'Cette console est enregistrée.',
        console: 'Console', starting: 'Démarrage', connecting: 'Connexion en cours', connected: 'Connecté',
        plain: 'Connecté, non chiffré', closed: 'Déconnecté', failed: 'Non connecté',
        returning: 'Connexion perdue, nouvelle tentative', moving: 'La machine virtuelle change d’hôte',
        keys: 'Touches', paste: 'Coller un texte', view: 'Affichage', keyboard: 'Clavier', screenshot: 'Capture d’écran',
        fullScreen: 'Plein écran', leaveFullScreen: 'Quitter le plein écran', fit: 'Ajuster à la fenêtre', actual: 'Taille réelle',
        remote: 'Suivre la fenêtre', remoteHint: 'Demander à l’invité de prendre la taille de la fenêtre', viewOnly: 'Lecture seule',
        quality: 'Qualité de l’image', compression: 'Compression', rate: 'Réception', hold: 'Maintenir enfoncée',
        releaseAll: 'Relâcher toutes les touches', textLabel: 'Texte pour la machine virtuelle', layoutLabel: 'Clavier de l’invité',
        typeIt: 'Saisir', typeHint: 'Saisit touche par touche ; marche avec tout invité', toClipboard: 'Vers le presse-papiers de l’invité',
        clipboardHint: 'L’invité doit partager son presse-papiers', cancel: 'Annuler', close: 'Fermer',
        typed: '{done} touches sur {total}', cancelled: 'Annulé ; aucune touche n’est enfoncée',
        cannotType: 'Absent de ce clavier : {list}. Envoyé comme symbole, ce que beaucoup d’invités ignorent.',
        tooLong: 'Trop long à saisir : {length} caractères, {most} au plus.',
        guestCopied: 'L’invité a copié un texte', copy: 'Copier', copied: 'Copié', dismiss: 'Masquer',
        notOpened: 'La console n’a pas pu être ouverte.', wasClosed: 'La console a été fermée.',
        again: 'Rouvrez la console depuis la page de la machine virtuelle ; chaque lien ne sert qu’une fois.',
        retry: 'Réessayez dans un instant.', reconnect: 'Se reconnecter', noLink: 'Cette page n’a pas de lien de console.',
        reloaded: 'Elle a peut-être été rechargée.', lost: 'La connexion au proxy de console a été perdue.',
        noReason: 'Le proxy de console a fermé la connexion sans donner de raison.',
        unreachable: 'Le proxy de console est injoignable ou n’accepte plus de consoles pour l’instant. Fermez d’autres consoles et réessayez.',
        watching: 'Vous pouvez regarder, mais ni saisir ni cliquer.', shortcut: 'Ctrl+Alt+Maj+B quitte l’écran pour cette barre.',
        screenLabel: 'Écran de la machine virtuelle. {shortcut}', message: 'Message',
        password: 'L’écran demande un mot de passe que le proxy de console aurait dû fournir.',
    },
    es: {
        recording: 'Grabación', place: 'Posición en la grabación', pause: 'Pausa', play: 'Reproducir',
        recorded: 'Esta consola se está grabando.',
        console: 'Consola', starting: 'Iniciando', connecting: 'Conectando', connected: 'Conectado',
        plain: 'Conectado, sin cifrar', closed: 'Desconectado', failed: 'Sin conexión',
        returning: 'Conexión perdida, reconectando', moving: 'La máquina virtual se traslada a otro host',
        keys: 'Teclas', paste: 'Pegar texto', view: 'Vista', keyboard: 'Teclado', screenshot: 'Captura de pantalla',
        fullScreen: 'Pantalla completa', leaveFullScreen: 'Salir de pantalla completa', fit: 'Ajustar a la ventana', actual: 'Tamaño real',
        remote: 'Seguir la ventana', remoteHint: 'Pedir al invitado que tome el tamaño de la ventana', viewOnly: 'Solo ver',
        quality: 'Calidad de imagen', compression: 'Compresión', rate: 'Recibido', hold: 'Mantener pulsada',
        releaseAll: 'Soltar todas las teclas', textLabel: 'Texto para la máquina virtual', layoutLabel: 'Teclado del invitado',
        typeIt: 'Escribir', typeHint: 'Lo escribe tecla a tecla; sirve con cualquier invitado', toClipboard: 'Al portapapeles del invitado',
        clipboardHint: 'El invitado debe compartir su portapapeles', cancel: 'Cancelar', close: 'Cerrar',
        typed: '{done} de {total} teclas', cancelled: 'Cancelado; no queda ninguna tecla pulsada',
        cannotType: 'No está en este teclado: {list}. Se envía como símbolo, que muchos invitados ignoran.',
        tooLong: 'Demasiado largo para escribirlo: {length} caracteres, como máximo {most}.',
        guestCopied: 'El invitado copió un texto', copy: 'Copiar', copied: 'Copiado', dismiss: 'Ocultar',
        notOpened: 'No se pudo abrir la consola.', wasClosed: 'La consola se cerró.',
        again: 'Abra la consola de nuevo desde la página de la máquina virtual; cada enlace sirve una vez.',
        retry: 'Inténtelo de nuevo en un momento.', reconnect: 'Reconectar', noLink: 'Esta página no tiene enlace de consola.',
        reloaded: 'Quizá se recargó.', lost: 'Se perdió la conexión con el proxy de consola.',
        noReason: 'El proxy de consola cerró la conexión sin dar un motivo.',
        unreachable: 'El proxy de consola no responde o no admite más consolas por ahora. Cierre otras consolas e inténtelo de nuevo.',
        watching: 'Puede mirar, pero no escribir ni hacer clic.', shortcut: 'Ctrl+Alt+Mayús+B lleva de la pantalla a esta barra.',
        screenLabel: 'Pantalla de la máquina virtual. {shortcut}', message: 'Mensaje',
        password: 'La pantalla pide una contraseña que el proxy de consola debería haber dado.',
    },
    'pt-BR': {
        recording: 'Gravação', place: 'Posição na gravação', pause: 'Pausar', play: 'Reproduzir',
        recorded: 'Este console está sendo gravado.',
        console: 'Console', starting: 'Iniciando', connecting: 'Conectando', connected: 'Conectado',
        plain: 'Conectado, sem criptografia', closed: 'Desconectado', failed: 'Sem conexão',
        returning: 'Conexão perdida, reconectando', moving: 'A máquina virtual está mudando de host',
        keys: 'Teclas', paste: 'Colar texto', view: 'Exibição', keyboard: 'Teclado', screenshot: 'Captura de tela',
        fullScreen: 'Tela cheia', leaveFullScreen: 'Sair da tela cheia', fit: 'Ajustar à janela', actual: 'Tamanho real',
        remote: 'Acompanhar a janela', remoteHint: 'Pedir ao convidado que use o tamanho da janela', viewOnly: 'Somente ver',
        quality: 'Qualidade da imagem', compression: 'Compressão', rate: 'Recebido', hold: 'Manter pressionada',
        releaseAll: 'Soltar todas as teclas', textLabel: 'Texto para a máquina virtual', layoutLabel: 'Teclado do convidado',
        typeIt: 'Digitar', typeHint: 'Digita tecla por tecla; funciona em qualquer convidado', toClipboard: 'Para a área de transferência do convidado',
        clipboardHint: 'O convidado precisa compartilhar a área de transferência', cancel: 'Cancelar', close: 'Fechar',
        typed: '{done} de {total} teclas', cancelled: 'Cancelado; nenhuma tecla está pressionada',
        cannotType: 'Não existe neste teclado: {list}. É enviado como símbolo, que muitos convidados ignoram.',
        tooLong: 'Longo demais para digitar: {length} caracteres, no máximo {most}.',
        guestCopied: 'O convidado copiou um texto', copy: 'Copiar', copied: 'Copiado', dismiss: 'Ocultar',
        notOpened: 'Não foi possível abrir o console.', wasClosed: 'O console foi fechado.',
        again: 'Abra o console de novo na página da máquina virtual; cada link vale uma vez.',
        retry: 'Tente de novo em instantes.', reconnect: 'Reconectar', noLink: 'Esta página não tem link de console.',
        reloaded: 'Talvez tenha sido recarregada.', lost: 'A conexão com o proxy do console foi perdida.',
        noReason: 'O proxy do console fechou a conexão sem informar o motivo.',
        unreachable: 'O proxy do console não responde ou não aceita mais consoles no momento. Feche outros consoles e tente de novo.',
        watching: 'Você pode ver, mas não digitar nem clicar.', shortcut: 'Ctrl+Alt+Shift+B leva da tela para esta barra.',
        screenLabel: 'Tela da máquina virtual. {shortcut}', message: 'Mensagem',
        password: 'A tela pede uma senha que o proxy do console deveria ter informado.',
    },
    ja: {
        recording: '録画', place: '録画内の位置', pause: '一時停止', play: '再生',
        recorded: 'このコンソールは録画されています。',
        console: 'コンソール', starting: '開始中', connecting: '接続中', connected: '接続済み',
        plain: '接続済み（暗号化なし）', closed: '切断', failed: '未接続',
        returning: '接続が切れました。再接続中', moving: '仮想マシンが別のホストに移動中です',
        keys: 'キー', paste: 'テキスト入力', view: '表示', keyboard: 'キーボード', screenshot: 'スクリーンショット',
        fullScreen: '全画面', leaveFullScreen: '全画面を終了', fit: 'ウィンドウに合わせる', actual: '等倍',
        remote: 'ウィンドウに追従', remoteHint: 'ゲストの画面をウィンドウの大きさにする', viewOnly: '表示のみ',
        quality: '画質', compression: '圧縮', rate: '受信', hold: '押したままにする',
        releaseAll: 'すべてのキーを離す', textLabel: '仮想マシンに送るテキスト', layoutLabel: 'ゲストのキーボード',
        typeIt: '入力する', typeHint: '1 キーずつ入力します。どのゲストでも使えます', toClipboard: 'ゲストのクリップボードへ',
        clipboardHint: 'クリップボードを共有するゲストが必要です', cancel: 'キャンセル', close: '閉じる',
        typed: '{total} キー中 {done}', cancelled: 'キャンセルしました。押されたままのキーはありません',
        cannotType: 'このキーボードにない文字: {list}。記号として送りますが、多くのゲストは無視します。',
        tooLong: '長すぎて入力できません: {length} 文字（最大 {most}）。',
        guestCopied: 'ゲストがテキストをコピーしました', copy: 'コピー', copied: 'コピーしました', dismiss: '閉じる',
        notOpened: 'コンソールを開けませんでした。', wasClosed: 'コンソールは閉じられました。',
        again: '仮想マシンのページからコンソールを開き直してください。リンクは一度だけ有効です。',
        retry: 'しばらくしてからもう一度お試しください。', reconnect: '再接続', noLink: 'このページにはコンソールのリンクがありません。',
        reloaded: '再読み込みされた可能性があります。', lost: 'コンソールプロキシとの接続が切れました。',
        noReason: 'コンソールプロキシが理由を示さずに接続を閉じました。',
        unreachable: 'コンソールプロキシに接続できないか、現在新しいコンソールを受け付けていません。他のコンソールを閉じてからお試しください。',
        watching: '表示のみです。入力やクリックはできません。', shortcut: 'Ctrl+Alt+Shift+B で画面からこのバーに移ります。',
        screenLabel: '仮想マシンの画面。{shortcut}', message: 'メッセージ',
        password: '画面がパスワードを求めていますが、コンソールプロキシから渡されていません。',
    },
    'zh-CN': {
        recording: '录像', place: '录像中的位置', pause: '暂停', play: '播放',
        recorded: '此控制台正在被录制。',
        console: '控制台', starting: '正在启动', connecting: '正在连接', connected: '已连接',
        plain: '已连接，未加密', closed: '已断开', failed: '未连接',
        returning: '连接中断，正在重新连接', moving: '虚拟机正在迁移到另一台主机',
        keys: '按键', paste: '粘贴文本', view: '视图', keyboard: '键盘', screenshot: '截图',
        fullScreen: '全屏', leaveFullScreen: '退出全屏', fit: '适应窗口', actual: '实际大小',
        remote: '跟随窗口', remoteHint: '请求客户机采用窗口的大小', viewOnly: '仅查看',
        quality: '画质', compression: '压缩', rate: '接收', hold: '按住',
        releaseAll: '松开所有按键', textLabel: '发送给虚拟机的文本', layoutLabel: '客户机的键盘',
        typeIt: '输入', typeHint: '逐键输入，适用于所有客户机', toClipboard: '发送到客户机剪贴板',
        clipboardHint: '需要客户机共享剪贴板', cancel: '取消', close: '关闭',
        typed: '{done} / {total} 个按键', cancelled: '已取消，没有按键处于按下状态',
        cannotType: '此键盘上没有：{list}。将作为符号发送，许多客户机会忽略。',
        tooLong: '文本过长：{length} 个字符，最多 {most} 个。',
        guestCopied: '客户机复制了一段文本', copy: '复制', copied: '已复制', dismiss: '关闭',
        notOpened: '无法打开控制台。', wasClosed: '控制台已关闭。',
        again: '请从虚拟机页面重新打开控制台；每个链接只能使用一次。',
        retry: '请稍后重试。', reconnect: '重新连接', noLink: '此页面没有控制台链接。',
        reloaded: '页面可能被重新加载过。', lost: '与控制台代理的连接已中断。',
        noReason: '控制台代理未说明原因就关闭了连接。',
        unreachable: '无法连接控制台代理，或其暂时不接受新的控制台。请关闭其他控制台后重试。',
        watching: '只能查看，不能输入或点击。', shortcut: '按 Ctrl+Alt+Shift+B 可从屏幕回到此栏。',
        screenLabel: '虚拟机屏幕。{shortcut}', message: '消息',
        password: '屏幕要求输入控制台代理本应提供的密码。',
    },
};

/** The best language that the page knows for those that the browser wants. */
export function choose(wanted) {
    for (const tag of wanted) {
        const known = Object.keys(WORDS);
        const found = known.find((name) => name.toLowerCase() === tag.toLowerCase())
            ?? known.find((name) => name.split('-')[0] === tag.toLowerCase().split('-')[0]);
        if (found) {
            return found;
        }
    }
    return 'en';
}

export const language = choose(navigator.languages ?? [navigator.language ?? 'en']);

/** A text in the user's language, its places filled in. */
export function say(name, values = {}) {
    const text = WORDS[language][name] ?? WORDS.en[name];
    return text.replace(/\{(\w+)\}/g, (_, key) => String(values[key] ?? ''));
}

/** Puts the words into every element that names one: text, title, label. */
export function translate(root) {
    document.documentElement.lang = language;
    for (const element of root.querySelectorAll('[data-say]')) {
        element.textContent = say(element.dataset.say);
    }
    for (const element of root.querySelectorAll('[data-hint]')) {
        element.title = say(element.dataset.hint);
    }
    for (const element of root.querySelectorAll('[data-label]')) {
        element.setAttribute('aria-label', say(element.dataset.label));
    }
}
