import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import {
  deviceTitle,
  formatBytes,
  memoryText,
  utilisationText
} from '../text/format';
import type { IDevice, IHost, ILease, IUsage } from '../wire/types';
import { Problem, SimulatedBadge } from './badges';
import { Bar } from './bar';
import { DrainLine, type IDrainLineProps } from './drain';
import { EnforcementLine, OffersLine } from './enforcement';
import { HealthList } from './health';
import { slicesOn, segments } from './segments';
import { SliceRow } from './slicerow';
import { StrayList } from './strays';

export interface IDeviceProps {
  actions: IDrainLineProps['actions'];
  device: IDevice;
  host: IHost;
  /** All live leases of the host; those on other devices are left out here. */
  leases: readonly ILease[];
  usage: IUsage | null;
  kernelId: string | null;
  /** Seconds since the epoch by the server's clock. */
  now: number;
  /** The data is fresh enough to act upon. */
  online: boolean;
  trans: TranslationBundle;
}

/** A device: what it is, how it is cut, and what each slice uses. */
export function DeviceBlock(props: IDeviceProps): JSX.Element {
  const { device, kernelId, leases, trans } = props;
  const title = deviceTitle(device, trans);
  const slices = slicesOn(device, leases);
  return (
    <li className="jp-AIStack-device" data-device-id={device.id}>
      <div className="jp-AIStack-deviceHead">
        <h4 className="jp-AIStack-deviceName" title={device.id}>
          <span className="jp-AIStack-deviceKind">{title}</span>
          <span className="jp-AIStack-deviceModel">{device.name}</span>
        </h4>
        {device.simulated && <SimulatedBadge trans={trans} />}
      </div>
      <DeviceUse {...props} />
      {device.problem && <Problem text={device.problem} />}
      <DrainLine {...props} />
      <HealthList device={device} now={props.now} trans={trans} />
      <OffersLine device={device} trans={trans} />
      <EnforcementLine device={device} trans={trans} />
      <Bar
        segments={segments(device, leases, kernelId, trans)}
        title={title}
        trans={trans}
      />
      {(slices.length > 0 || device.foreign_memory_bytes !== 0) && (
        <ul className="jp-AIStack-slices">
          {slices.map(entry => (
            <SliceRow
              key={`${entry.lease.id}:${entry.slice.uuid}`}
              {...entry}
              device={device}
              host={props.host}
              usage={props.usage}
              kernelId={kernelId}
              now={props.now}
              trans={trans}
            />
          ))}
          {device.foreign_memory_bytes !== 0 && <ForeignRow {...props} />}
        </ul>
      )}
      <StrayList
        device={device}
        strays={props.host.strays}
        now={props.now}
        trans={trans}
      />
    </li>
  );
}

/** What the device as a whole uses; nothing where nothing is known. */
function DeviceUse(props: IDeviceProps): JSX.Element | null {
  const { device, trans } = props;
  const use = props.usage?.devices[device.id];
  if (!use) {
    return null;
  }
  const parts = [
    memoryText(use, device.memory_bytes, trans),
    utilisationText(use, trans)
  ];
  if (use.power_watts !== null) {
    parts.push(`${Math.round(use.power_watts)} W`);
  }
  return <p className="jp-AIStack-figures">{parts.join(' · ')}</p>;
}

function ForeignRow(props: IDeviceProps): JSX.Element {
  const { device, trans } = props;
  return (
    <li
      className="jp-AIStack-foreign"
      title={trans.__('Processes that use the device without having asked')}
    >
      <div className="jp-AIStack-sliceHead">
        <span className="jp-AIStack-swatch" aria-hidden="true" />
        <span className="jp-AIStack-sliceName">
          {trans.__('others, without a lease')}
        </span>
        <span className="jp-AIStack-sliceSize">
          {device.foreign_memory_bytes === null
            ? trans.__('n/a')
            : formatBytes(device.foreign_memory_bytes)}
        </span>
      </div>
    </li>
  );
}
