import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { isOnline } from '../commands/base';
import type { IPanelActions } from '../commands/panelactions';
import { formatDuration } from '../text/format';
import type { ILeaseManager } from '../tokens';
import type { IHost } from '../wire/types';
import { Announcer } from './announcer';
import { Warning } from './badges';
import { DeviceBlock } from './device';
import { HostHeader } from './host';
import { MySlice } from './myslice';
import { OtherHosts } from './otherhosts';
import { Queue } from './queue';
import { upcoming, Reservations } from './reservations';
import { useTick } from './tick';

export interface IPanelProps {
  actions: IPanelActions;
  extendSeconds: number;
  kernelId: string | null;
  manager: ILeaseManager;
  trans: TranslationBundle;
}

/** The whole panel, in whichever state the data is. */
export function PanelView(props: IPanelProps): JSX.Element {
  return (
    <div className="jp-AIStack-content" data-status={props.manager.status}>
      <Announcer {...props} />
      <Content {...props} />
    </div>
  );
}

function Content(props: IPanelProps): JSX.Element {
  const { host, status } = props.manager;
  if (host) {
    return <Loaded {...props} host={host} />;
  }
  return status === 'disconnected' ? (
    <Failed {...props} />
  ) : (
    <Loading trans={props.trans} />
  );
}

function Loading(props: { trans: TranslationBundle }): JSX.Element {
  return (
    <div className="jp-AIStack-state jp-mod-loading" role="status">
      <div className="jp-AIStack-skeleton" aria-hidden="true" />
      <div className="jp-AIStack-skeleton" aria-hidden="true" />
      <p>{props.trans.__('Looking for devices…')}</p>
    </div>
  );
}

function Failed(props: IPanelProps): JSX.Element {
  const { actions, manager, trans } = props;
  return (
    <div className="jp-AIStack-state jp-mod-error" role="alert">
      <p className="jp-AIStack-stateTitle">
        {trans.__('The devices cannot be shown')}
      </p>
      <p>{manager.problem}</p>
      <button className="jp-AIStack-button" onClick={() => actions.retry()}>
        {trans.__('Retry')}
      </button>
    </div>
  );
}

function Loaded(props: IPanelProps & { host: IHost }): JSX.Element {
  const online = isOnline(props.manager);
  return (
    <>
      <HostHeader
        host={props.host}
        isPolling={props.manager.status === 'polling'}
        refresh={props.actions.refresh}
        trans={props.trans}
      />
      {!online && <Disconnected {...props} />}
      <div
        className={online ? 'jp-AIStack-body' : 'jp-AIStack-body jp-mod-stale'}
      >
        <Section title={props.trans.__('My slice')} name="mine">
          <MySliceSection {...props} online={online} />
        </Section>
        <Section title={props.trans.__('Devices')} name="devices">
          <Devices {...props} />
        </Section>
        <Section title={props.trans.__('Queue')} name="queue">
          <Queue
            actions={props.actions}
            queue={props.manager.queue}
            kernelId={props.kernelId}
            clock={clockOf(props.manager)}
            online={online}
            trans={props.trans}
          />
        </Section>
        {props.host.other_hosts > 0 && (
          <Section title={props.trans.__('Other hosts')} name="hosts">
            <OtherHosts
              count={props.host.other_hosts}
              fetch={() => props.manager.hosts()}
              trans={props.trans}
            />
          </Section>
        )}
        {upcoming(props.host.reservations, props.manager.now()).length > 0 && (
          <Section title={props.trans.__('Reservations')} name="reservations">
            <Reservations
              reservations={props.host.reservations}
              now={props.manager.now()}
              trans={props.trans}
            />
          </Section>
        )}
      </div>
    </>
  );
}

function clockOf(manager: ILeaseManager): () => number {
  return () => manager.now();
}

/** Says how old the data is; ticks by itself, for nothing else will. */
function Disconnected(props: IPanelProps): JSX.Element {
  const { actions, manager, trans } = props;
  useTick();
  const age = (Date.now() - (manager.lastSeen ?? Date.now())) / 1000;
  return (
    <div className="jp-AIStack-banner">
      <div>
        <p>
          <span aria-hidden="true">⚠ </span>
          {trans.__('Disconnected, last seen %1 ago', formatDuration(age))}
        </p>
        {manager.problem && <p>{manager.problem}</p>}
      </div>
      <button
        className="jp-AIStack-button jp-mod-small"
        onClick={() => actions.retry()}
      >
        {trans.__('Retry')}
      </button>
    </div>
  );
}

function Section(props: {
  title: string;
  name: string;
  children: React.ReactNode;
}): JSX.Element {
  const id = `jp-AIStack-title-${props.name}`;
  return (
    <section
      className={`jp-AIStack-section jp-mod-${props.name}`}
      aria-labelledby={id}
    >
      <h3 className="jp-AIStack-sectionTitle" id={id}>
        {props.title}
      </h3>
      {props.children}
    </section>
  );
}

function MySliceSection(
  props: IPanelProps & { host: IHost; online: boolean }
): JSX.Element {
  const { kernelId, manager } = props;
  return (
    <MySlice
      actions={props.actions}
      usageSummary={id => manager.usageSummary(id)}
      extendSeconds={props.extendSeconds}
      host={props.host}
      kernelId={kernelId}
      lease={kernelId ? manager.leaseOf(kernelId) : null}
      request={kernelId ? manager.requestOf(kernelId) : null}
      usage={manager.usage}
      clock={clockOf(manager)}
      online={props.online}
      trans={props.trans}
      workers={manager.leases.filter(
        ({ holder }) => !!kernelId && holder.parent === kernelId
      )}
    />
  );
}

function Devices(props: IPanelProps & { host: IHost }): JSX.Element {
  const { host, manager, trans } = props;
  return (
    <>
      {host.problems.map(problem => (
        <Warning key={problem} text={problem} />
      ))}
      {host.devices.length === 0 && (
        <p className="jp-AIStack-empty">
          {trans.__('No device was found on this host.')}
        </p>
      )}
      <ul className="jp-AIStack-devices">
        {host.devices.map(device => (
          <DeviceBlock
            key={device.id}
            actions={props.actions}
            device={device}
            host={host}
            leases={manager.leases}
            usage={manager.usage}
            kernelId={props.kernelId}
            now={manager.now()}
            online={isOnline(manager)}
            trans={trans}
          />
        ))}
      </ul>
    </>
  );
}
