// Shared by our widgets; put in front of each widget's own module.

// The picture kept in the notebook file says the same as the live view: it is hidden while that lives.
const hidePicture = (model, el, signal) => {
  const find = () => {
    const picture = document.querySelector(`[data-aistack-picture="${model.get('picture_id')}"]`);
    return picture?.closest('.jp-OutputArea-child') ?? picture;
  };
  const show = isShown => {
    const picture = find();
    if (picture) {
      picture.style.display = isShown ? '' : 'none';
    }
  };
  const hide = () => show(false);
  const watcher = new MutationObserver(hide);
  watcher.observe(el.closest('.jp-OutputArea') ?? document.body, { childList: true, subtree: true });
  hide();
  signal.addEventListener('abort', () => {
    watcher.disconnect();
    show(true);
  });
};

// A render function that draws again whenever one of `names` changes, and leaves nothing behind.
const liveView = (names, draw) => ({ model, el, signal: given }) => {
  const own = new AbortController();
  const signal = given ? AbortSignal.any([given, own.signal]) : own.signal;
  const redraw = () => draw(model, el);
  const events = names.map(name => `change:${name}`).join(' ');
  model.on(events, redraw);
  signal.addEventListener('abort', () => model.off(events, redraw));
  redraw();
  // The element is put into the page after this returns.
  requestAnimationFrame(() => signal.aborted || hidePicture(model, el, signal));
  return () => own.abort();
};
