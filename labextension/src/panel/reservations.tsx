import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { formatWindow, type ICalendar } from '../text/window';
import type { IReservation } from '../wire/types';

export interface IReservationsProps {
  reservations: readonly IReservation[];
  /** Seconds since the epoch by the server's clock. */
  now: number;
  trans: TranslationBundle;
  calendar?: ICalendar;
}

/** What is kept for whom: what runs, then what comes, soonest first. */
export function Reservations(props: IReservationsProps): JSX.Element {
  return (
    <ul className="jp-AIStack-reservations">
      {upcoming(props.reservations, props.now).map(reservation => (
        <Reservation
          key={reservation.id}
          {...props}
          reservation={reservation}
        />
      ))}
    </ul>
  );
}

/** Those that run or will, in the order in which they matter. */
export function upcoming(
  reservations: readonly IReservation[],
  now: number
): IReservation[] {
  return reservations
    .filter(({ next_ends_at }) => next_ends_at > now)
    .sort(
      (a, b) =>
        Number(b.is_running) - Number(a.is_running) ||
        a.next_starts_at - b.next_starts_at
    );
}

function Reservation(
  props: IReservationsProps & { reservation: IReservation }
): JSX.Element {
  const { reservation, trans } = props;
  const { count, name, queue, spec } = reservation;
  return (
    <li data-reservation-id={reservation.id}>
      <div className="jp-AIStack-sliceHead">
        <span className="jp-AIStack-reservationName">{name}</span>
        {reservation.is_running && (
          <span className="jp-AIStack-badge jp-mod-running">
            {trans.__('running')}
          </span>
        )}
      </div>
      <p className="jp-AIStack-reason">
        {trans.__('%1 × %2 in queue %3', count, spec, queue)}
      </p>
      <p className="jp-AIStack-reason">{whenText(props)}</p>
    </li>
  );
}

function whenText(
  props: IReservationsProps & { reservation: IReservation }
): string {
  const { calendar, now, reservation, trans } = props;
  const when = formatWindow(
    reservation.next_starts_at,
    reservation.next_ends_at,
    now,
    trans,
    calendar
  );
  return reservation.is_weekly ? trans.__('%1, every week', when) : when;
}
