/* global liveView */
// One frame per metric: the curve, its extremes, and the last value in words.
const SVG = 'http://www.w3.org/2000/svg';
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [420, 160, 56, 12, 24, 22];

const make = (tag, attributes, text) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, value);
  }
  if (text !== undefined) {
    node.textContent = text;
  }
  return node;
};

const short = number => String(Number(number.toPrecision(3)));

const scale = (numbers, low, high) => {
  const [least, most] = [Math.min(...numbers), Math.max(...numbers)];
  // Halves, so that the span of the largest floats is still a float.
  const span = most / 2 - least / 2;
  return numbers.map(n => low + (high - low) * (span ? (n / 2 - least / 2) / span : 0.5));
};

const plot = points => {
  const [steps, values] = [points.map(p => p[0]), points.map(p => p[1])];
  const xs = scale(steps, LEFT, WIDTH - RIGHT);
  const ys = scale(values, HEIGHT - BOTTOM, TOP + 4);
  const brand = 'var(--jp-brand-color1, #1976d2)';
  const last = xs.length - 1;
  const end = { 'text-anchor': 'end' };
  return [
    make('polyline', {
      points: xs.map((x, i) => `${x.toFixed(1)},${ys[i].toFixed(1)}`).join(' '),
      fill: 'none',
      stroke: brand,
      'stroke-width': 1.5
    }),
    make('circle', { cx: xs[last], cy: ys[last], r: 3, fill: brand }),
    make('text', { x: LEFT - 6, y: TOP + 8, ...end }, short(Math.max(...values))),
    make('text', { x: LEFT - 6, y: HEIGHT - BOTTOM, ...end }, short(Math.min(...values))),
    make('text', { x: LEFT, y: HEIGHT - 6 }, String(Math.min(...steps))),
    make('text', { x: WIDTH - RIGHT, y: HEIGHT - 6, ...end }, String(Math.max(...steps)))
  ];
};

const frame = curve => {
  const label = `${curve.name}: ${curve.last ?? 'no points yet'}`;
  const svg = make('svg', {
    role: 'img',
    'aria-label': label,
    width: WIDTH,
    height: HEIGHT,
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    'font-family': 'var(--jp-ui-font-family, sans-serif)',
    'font-size': 11,
    fill: 'currentColor'
  });
  svg.style.color = 'var(--jp-content-font-color1, #767676)';
  svg.append(
    make('text', { x: LEFT, y: 14, 'font-weight': 'bold' }, label),
    make('path', {
      d: `M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH - RIGHT}`,
      fill: 'none',
      stroke: 'currentColor',
      opacity: 0.4
    }),
    ...(curve.points.length ? plot(curve.points) : [])
  );
  return svg;
};

const render = liveView(['curves'], (model, el) => el.replaceChildren(...model.get('curves').map(frame)));

export default { render };
