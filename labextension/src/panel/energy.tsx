import type { TranslationBundle } from '@jupyterlab/translation';
import { Poll } from '@lumino/polling';
import * as React from 'react';

import { formatEnergy } from '../text/format';
import type { IUsageSummary, ILease, ILeaseUsage } from '../wire/types';

/** The server records usage every ten seconds. */
const PERIOD_MS = 30_000;
/** A server that records no usage is asked ever more seldom. */
const LONGEST_MS = 3_600_000;

/** A sum that is known for a smaller part of its time says too little to be shown as the whole. */
const COVERED = 0.95;

const JOULES_PER_WH = 3600;

/** What the slice has had of energy; nothing where that is not known. */
export function Energy(props: {
  /** What a kernel has used, as recorded by the server. */
  usageSummary: (kernelId: string) => Promise<IUsageSummary>;
  lease: ILease;
  trans: TranslationBundle;
}): JSX.Element | null {
  const { lease, trans } = props;
  const sums = useLeaseSums(lease, props.usageSummary);
  const wattHours = sums && wattHoursOf(sums);
  if (sums === null || wattHours === null) {
    return null;
  }
  const energy = formatEnergy(wattHours);
  return (
    <>
      <dt>{trans.__('Energy')}</dt>
      <dd>{isEstimate(sums) ? trans.__('%1, an estimate', energy) : energy}</dd>
    </>
  );
}

/** In watt-hours; null where too little of it is known. */
export function wattHoursOf(sums: ILeaseUsage): number | null {
  const isCovered =
    sums.gpu_seconds > 0 && sums.metered_seconds >= COVERED * sums.gpu_seconds;
  return isCovered ? sums.energy_joules / JOULES_PER_WH : null;
}

/** Whether a part of it is work of several slices, divided among them by their size. */
function isEstimate(sums: ILeaseUsage): boolean {
  return sums.energy_estimated_joules > 0;
}

function useLeaseSums(
  lease: ILease,
  usageSummary: (kernelId: string) => Promise<IUsageSummary>
): ILeaseUsage | null {
  const [sums, setSums] = React.useState<ILeaseUsage | null>(null);
  const latest = React.useRef(usageSummary);
  latest.current = usageSummary;
  const kernelId = lease.holder.id;
  React.useEffect(() => {
    const poll = new Poll({
      name: 'jupyter-aistack:usage-summary',
      factory: async () => {
        const { leases } = await latest.current(kernelId);
        setSums(leases[lease.id] ?? null);
      },
      frequency: { interval: PERIOD_MS, backoff: true, max: LONGEST_MS },
      standby: 'when-hidden'
    });
    return () => {
      poll.dispose();
      setSums(null);
    };
  }, [kernelId, lease.id]);
  return sums;
}
