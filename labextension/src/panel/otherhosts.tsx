import type { TranslationBundle } from '@jupyterlab/translation';
import { Poll } from '@lumino/polling';
import * as React from 'react';

import { formatBytes, formatDuration, holderName } from '../text/format';
import type { IHostOverview, IHosts, IReportedDevice } from '../wire/types';

/** A host tells every 20 seconds that it is there. */
const PERIOD_MS = 10_000;
/** A server that does not answer is asked ever more seldom. */
const LONGEST_MS = 300_000;

export interface IOtherHostsProps {
  /** How many there are. */
  count: number;
  /** Asks for all hosts. */
  fetch: () => Promise<IHosts>;
  trans: TranslationBundle;
}

/** The other hosts that share the ledger, to be looked at; nothing is asked before that. */
export function OtherHosts(props: IOtherHostsProps): JSX.Element {
  const { count, trans } = props;
  const [isOpen, setOpen] = React.useState(false);
  return (
    <details
      className="jp-AIStack-level"
      onToggle={event => setOpen(event.currentTarget.open)}
    >
      <summary>
        {trans._n(
          '%1 other host shares this queue',
          '%1 other hosts share this queue',
          count
        )}
      </summary>
      {isOpen && <HostList {...props} />}
    </details>
  );
}

function HostList(props: IOtherHostsProps): JSX.Element {
  const { trans } = props;
  const { answer, problem } = useHosts(props.fetch);
  if (answer === null) {
    return <p role="status">{problem || trans.__('Asking…')}</p>;
  }
  return (
    <ul className="jp-AIStack-hosts">
      {answer.hosts
        .filter(host => !host.is_here)
        .map(host => (
          <Host key={host.id} host={host} now={answer.at} trans={trans} />
        ))}
    </ul>
  );
}

function useHosts(fetch: () => Promise<IHosts>): {
  answer: IHosts | null;
  problem: string;
} {
  const [answer, setAnswer] = React.useState<IHosts | null>(null);
  const [problem, setProblem] = React.useState('');
  const latest = React.useRef(fetch);
  latest.current = fetch;
  React.useEffect(() => {
    const poll = new Poll({
      name: 'jupyter-aistack:hosts',
      factory: async () => {
        try {
          setAnswer(await latest.current());
        } catch (error) {
          setProblem(error instanceof Error ? error.message : String(error));
          throw error;
        }
      },
      frequency: { interval: PERIOD_MS, backoff: true, max: LONGEST_MS },
      standby: 'when-hidden'
    });
    return () => poll.dispose();
  }, []);
  return { answer, problem };
}

function Host(props: {
  host: IHostOverview;
  now: number;
  trans: TranslationBundle;
}): JSX.Element {
  const { host, trans } = props;
  return (
    <li data-host-id={host.id}>
      <p className="jp-AIStack-hostName">{host.name}</p>
      {!host.is_heard && (
        <p className="jp-AIStack-reason">{unheardText(props)}</p>
      )}
      <ul>
        {host.devices.map(device => (
          <li key={device.id}>
            {deviceText(device, trans)}
            <ul>
              {holders(host, device).map(text => (
                <li key={text}>{text}</li>
              ))}
            </ul>
          </li>
        ))}
      </ul>
      {host.queue.length > 0 && (
        <p>
          {trans._n(
            '%1 request waits there',
            '%1 requests wait there',
            host.queue.length
          )}
        </p>
      )}
    </li>
  );
}

function unheardText(props: {
  host: IHostOverview;
  now: number;
  trans: TranslationBundle;
}): string {
  const { host, now, trans } = props;
  if (host.seen_at === null) {
    return trans.__('Never heard of: what is free there is not known');
  }
  return trans.__(
    'Not heard of for %1: what is free there is not known',
    formatDuration(now - host.seen_at)
  );
}

function deviceText(device: IReportedDevice, trans: TranslationBundle): string {
  const size = formatBytes(device.memory_bytes);
  const free =
    device.free_fraction === null
      ? ''
      : trans.__('%1 free', device.free_fraction);
  return [device.name, size, free, device.problem].filter(Boolean).join(' · ');
}

function holders(host: IHostOverview, device: IReportedDevice): string[] {
  return host.leases.flatMap(lease =>
    lease.slices
      .filter(slice => slice.device_id === device.id)
      .map(slice => {
        const size = slice.profile || slice.fraction;
        const { holder } = lease;
        return [size, holderName(holder), holder.user]
          .filter(Boolean)
          .join(' · ');
      })
  );
}
