import * as React from 'react';
import { renderToStaticMarkup } from 'react-dom/server';

import { upcoming, Reservations } from '../../panel/reservations';
import type { IReservation } from '../../wire/types';
import { sampleSnapshot, trans } from '../fakes';

const { host, usage } = sampleSnapshot();
const [weekly] = host.reservations;

function shown(...reservations: IReservation[]): string[] {
  const page = document.createElement('div');
  page.innerHTML = renderToStaticMarkup(
    <Reservations
      reservations={reservations}
      now={usage.at}
      trans={trans}
      calendar={{ locale: 'en-GB', timeZone: 'UTC' }}
    />
  );
  return Array.from(page.querySelectorAll('li > *'), e => e.textContent ?? '');
}

it('say what is kept, for whom and when', () => {
  expect(shown(weekly)).toEqual([
    'deep learning class',
    '12 × 1/8 in queue default',
    'Tuesday 10:00–12:00, every week'
  ]);
});

it('say when they come only once, and when they run', () => {
  const once = {
    ...weekly,
    is_weekly: false,
    is_running: true,
    next_starts_at: usage.at - 60,
    next_ends_at: usage.at + 3600
  };
  expect(shown(once)[0]).toBe('deep learning classrunning');
  expect(shown(once)[2]).toBe('today 14:53–15:54');
});

it('come in the order in which they matter, those that are over not at all', () => {
  const soon = { ...weekly, id: 'soon', next_starts_at: usage.at + 1 };
  const runs = { ...weekly, id: 'runs', is_running: true };
  const over = { ...weekly, id: 'over', next_ends_at: usage.at };
  const ids = upcoming([weekly, soon, over, runs], usage.at).map(
    ({ id }) => id
  );
  expect(ids).toEqual(['runs', 'soon', 'v-class']);
});
