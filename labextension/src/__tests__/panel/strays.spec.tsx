import * as React from 'react';
import { renderToStaticMarkup } from 'react-dom/server';

import { StrayList } from '../../panel/strays';
import { sampleSnapshot, trans } from '../fakes';

function rows(index: number): string[] {
  const { host } = sampleSnapshot();
  const page = document.createElement('div');
  page.innerHTML = renderToStaticMarkup(
    <StrayList
      device={host.devices[index]}
      strays={[...host.strays].reverse()}
      now={1790000300}
      trans={trans}
    />
  );
  const found = page.querySelectorAll('.jp-AIStack-stray');
  return Array.from(found, each => each.textContent ?? '');
}

it('shows who uses a device without a lease, the own processes first', () => {
  expect(rows(0)).toEqual([
    'process 4711 (python train.py) yours 3 GiB · for 5 min · will be ended in 10 min',
    'process n/a someone n/a · for n/a'
  ]);
});

it('shows nothing on a device that nobody uses so', () => {
  expect(rows(1)).toEqual([]);
});
