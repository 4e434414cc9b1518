/** What jsdom lacks and JupyterLab's packages take for granted as they load. */

Object.assign(globalThis, {
  DragEvent: globalThis.DragEvent ?? class extends MouseEvent {},
  IS_REACT_ACT_ENVIRONMENT: true,
  matchMedia:
    globalThis.matchMedia ??
    (() => ({
      matches: false,
      addListener: () => undefined,
      removeListener: () => undefined,
      addEventListener: () => undefined,
      removeEventListener: () => undefined
    })),
  requestIdleCallback:
    globalThis.requestIdleCallback ??
    ((callback: () => void) => setTimeout(callback, 0)),
  cancelIdleCallback:
    globalThis.cancelIdleCallback ?? ((id: number) => clearTimeout(id))
});
