/* global liveView */
// A line per device and per slice of this kernel: name, memory bar, how busy, who holds it.
const make = (tag, style, text) => {
  const node = document.createElement(tag);
  Object.assign(node.style, style);
  if (text !== undefined) {
    node.textContent = text;
  }
  return node;
};

// Unknown is drawn as an empty, dashed frame and said in words: it must not look like zero.
const meter = row => {
  const isKnown = row.share !== null;
  const frame = make('div', {
    width: '160px',
    height: '10px',
    borderRadius: '2px',
    border: `1px ${isKnown ? 'solid' : 'dashed'} var(--jp-border-color1, #bbb)`
  });
  frame.setAttribute('role', 'img');
  frame.setAttribute('aria-label', `${row.name}: memory ${row.memory}`);
  if (isKnown) {
    const isFull = row.share > 0.95;
    frame.append(
      make('div', {
        width: `${Math.round(100 * Math.min(1, row.share))}%`,
        height: '100%',
        background: isFull ? 'var(--jp-warn-color1, #f57c00)' : 'var(--jp-brand-color1, #1976d2)'
      })
    );
  }
  return frame;
};

// Who holds it, and how its memory stands where that may leave the device.
const holder = row => {
  const cell = make('span', { color: 'var(--jp-content-font-color2, #666)' }, row.who);
  if (row.standing) {
    const frame = { display: 'inline-block', border: '1px solid', borderRadius: '8px', padding: '0 6px' };
    cell.append(' ', make('span', { ...frame, color: 'var(--jp-content-font-color1, #333)' }, row.standing));
  }
  return cell;
};

const line = row => {
  const cells = [
    make('span', { fontWeight: row.is_mine ? 'bold' : 'normal' }, row.name),
    meter(row),
    make('span', {}, row.memory),
    make('span', {}, `busy ${row.busy}`),
    holder(row)
  ];
  return cells;
};

const draw = (model, el) => {
  const grid = make('div', {
    display: 'grid',
    gridTemplateColumns: 'auto auto auto auto 1fr',
    gap: '4px 12px',
    alignItems: 'center',
    fontSize: 'var(--jp-ui-font-size1, 13px)',
    fontVariantNumeric: 'tabular-nums',
    color: 'var(--jp-content-font-color1, #333)'
  });
  grid.append(...model.get('rows').flatMap(line));
  const note = make('div', { color: 'var(--jp-content-font-color2, #666)' }, model.get('note'));
  el.replaceChildren(grid, note);
};

export default { render: liveView(['rows', 'note'], draw) };
