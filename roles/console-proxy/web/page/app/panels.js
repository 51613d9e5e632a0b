// The panels below the bar: one at a time, opened by its button, closed by Escape.

export const element = (id) => document.getElementById(id);

let focusScreen = () => {};

const buttons = () => document.querySelectorAll('[data-panel]');

function show(open) {
    for (const button of buttons()) {
        const panel = button.dataset.panel;
        element(panel).hidden = panel !== open;
        button.setAttribute('aria-expanded', String(panel === open));
    }
}

export const panels = {
    start(toScreen) {
        focusScreen = toScreen;
        for (const button of buttons()) {
            const panel = element(button.dataset.panel);
            button.setAttribute('aria-controls', panel.id);
            button.setAttribute('aria-expanded', 'false');
            button.addEventListener('click', () => (panel.hidden ? panels.open(panel.id) : panels.leave()));
            panel.addEventListener('keydown', (event) => {
                if (event.key === 'Escape') {
                    panels.leave();
                }
            });
        }
    },

    open(id) {
        show(id);
        element(id).querySelector('textarea, button, input, select')?.focus();
    },

    /** Closes whatever is open. */
    close() { show(null); },

    /** The same, and the keys go to the screen again. */
    leave() {
        show(null);
        focusScreen();
    },
};
