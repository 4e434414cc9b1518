import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { formatBytes, formatDuration, parseFraction } from '../text/format';
import type { IHost, IQueueSettings } from '../wire/types';

/** What the user has filled in. */
export interface IRequestValue {
  spec: string;
  /** For how long at most; null for no end. */
  leaseSeconds: number | null;
  /** In which queue; empty for the user's own. */
  queue: string;
  /** The share of each device that it may use while nobody else needs it; empty for what is granted. */
  upTo: string;
  /** Higher-priority requests may preempt it. */
  isPreemptible: boolean;
}

export interface IRequestFormProps {
  host: IHost | null;
  value: IRequestValue;
  onChange: (value: IRequestValue) => void;
  /** What was wrong with the last attempt; empty for nothing. */
  error: string;
  trans: TranslationBundle;
}

const SIZES = ['1/8', '1/4', '1/2', '1'];
const CEILINGS = ['1/2', '3/4', '1/1'];
const DURATIONS = [1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600];

/** How much, for how long, and on which terms. */
export function RequestForm(props: IRequestFormProps): JSX.Element {
  const { error, host, onChange, trans, value } = props;
  const setSpec = (spec: string): void => onChange({ ...value, spec });
  return (
    <div className="jp-AIStack-form">
      <SizeChoice spec={value.spec} onChange={setSpec} trans={trans} />
      <label className="jp-AIStack-field">
        <span>{trans.__('or as text')}</span>
        <input
          className="jp-mod-styled"
          name="spec"
          type="text"
          value={value.spec}
          spellCheck={false}
          aria-invalid={error !== ''}
          aria-describedby="jp-AIStack-specHelp jp-AIStack-formError"
          onChange={event => setSpec(event.target.value)}
        />
      </label>
      <p className="jp-AIStack-help" id="jp-AIStack-specHelp">
        {sizeHint(value.spec, host, trans)}
      </p>
      <CeilingChoice {...props} />
      <DurationChoice {...props} />
      <QueueChoice {...props} />
      <PreemptibleChoice {...props} />
      <p
        className="jp-AIStack-formError"
        id="jp-AIStack-formError"
        role="alert"
      >
        {error}
      </p>
    </div>
  );
}

function SizeChoice(props: {
  spec: string;
  onChange: (spec: string) => void;
  trans: TranslationBundle;
}): JSX.Element {
  const { onChange, spec, trans } = props;
  return (
    <fieldset className="jp-AIStack-choices">
      <legend>{trans.__('Share of a device')}</legend>
      {SIZES.map(size => (
        <label key={size} className="jp-AIStack-choice">
          <input
            type="radio"
            name="jp-AIStack-size"
            value={size}
            checked={spec.trim() === size}
            onChange={() => onChange(size)}
          />
          <span>{size === '1' ? trans.__('1 whole') : size}</span>
        </label>
      ))}
    </fieldset>
  );
}

interface IHelpedSelectProps {
  /** The field of the request, also in the ids of the page. */
  name: string;
  label: string;
  help: string;
  value: string;
  onChange: (value: string) => void;
  children: React.ReactNode;
}

/** A choice with a sentence below it that says what it means. */
function HelpedSelect(props: IHelpedSelectProps): JSX.Element {
  const { children, help, label, name, onChange, value } = props;
  const helpId = `jp-AIStack-${name}Help`;
  return (
    <>
      <label className="jp-AIStack-field">
        <span>{label}</span>
        <select
          className="jp-mod-styled"
          name={name}
          value={value}
          aria-describedby={helpId}
          onChange={event => onChange(event.target.value)}
        >
          {children}
        </select>
      </label>
      <p className="jp-AIStack-help jp-mod-short" id={helpId}>
        {help}
      </p>
    </>
  );
}

function CeilingChoice(props: IRequestFormProps): JSX.Element {
  const { onChange, trans, value } = props;
  return (
    <HelpedSelect
      name="up_to"
      label={trans.__('Up to')}
      help={trans.__(
        'Of the device, while nobody else needs it. The size above is guaranteed.'
      )}
      value={value.upTo}
      onChange={upTo => onChange({ ...value, upTo })}
    >
      <option value="">{trans.__('what is granted')}</option>
      {CEILINGS.map(share => (
        <option key={share} value={share}>
          {share}
        </option>
      ))}
    </HelpedSelect>
  );
}

function DurationChoice(props: IRequestFormProps): JSX.Element {
  const { onChange, trans, value } = props;
  return (
    <label className="jp-AIStack-field">
      <span>{trans.__('For')}</span>
      <select
        className="jp-mod-styled"
        name="duration"
        value={value.leaseSeconds ?? ''}
        onChange={event =>
          onChange({
            ...value,
            leaseSeconds: Number(event.target.value) || null
          })
        }
      >
        <option value="">{trans.__('as long as the kernel lives')}</option>
        {DURATIONS.map(seconds => (
          <option key={seconds} value={seconds}>
            {formatDuration(seconds)}
          </option>
        ))}
      </select>
    </label>
  );
}

/** Nothing where there is nothing to choose. */
function QueueChoice(props: IRequestFormProps): JSX.Element | null {
  const { host, onChange, trans, value } = props;
  const queues = host?.queues ?? [];
  const chosen = queues.find(({ name }) => name === value.queue);
  return queues.length < 2 ? null : (
    <HelpedSelect
      name="queue"
      label={trans.__('Queue')}
      help={
        chosen
          ? queueHint(chosen, trans)
          : trans.__('The queue that you belong to')
      }
      value={value.queue}
      onChange={queue => onChange({ ...value, queue })}
    >
      <option value="">{trans.__('my own')}</option>
      {queues.map(({ is_open, name }) => (
        <option key={name} value={name} disabled={!is_open}>
          {is_open ? name : trans.__('%1 (closed)', name)}
        </option>
      ))}
    </HelpedSelect>
  );
}

/** What a queue holds and may hold, and on which terms. */
export function queueHint(
  queue: IQueueSettings,
  trans: TranslationBundle
): string {
  const parts = [
    queue.limit === null
      ? trans.__('Holds %1 devices', queue.held)
      : trans.__('Holds %1 of at most %2 devices', queue.held, queue.limit)
  ];
  if (parseFraction(queue.quota) > 0) {
    parts.push(trans.__('quota %1', queue.quota));
  }
  if (queue.members.length > 0) {
    parts.push(trans.__('for %1', queue.members.join(', ')));
  }
  if (queue.is_batch) {
    parts.push(trans.__('yields to interactive work'));
  }
  if (queue.idle) {
    const after = formatDuration(queue.idle.reclaim_seconds);
    parts.push(trans.__('idle slices are reclaimed after %1', after));
  }
  return parts.join('; ');
}

function PreemptibleChoice(props: IRequestFormProps): JSX.Element {
  const { onChange, trans, value } = props;
  return (
    <div>
      <label className="jp-AIStack-check">
        <input
          type="checkbox"
          name="preemptible"
          checked={value.isPreemptible}
          aria-describedby="jp-AIStack-preemptibleHelp"
          onChange={event =>
            onChange({ ...value, isPreemptible: event.target.checked })
          }
        />
        <span>{trans.__('May be preempted')}</span>
      </label>
      <p
        className="jp-AIStack-help jp-mod-short"
        id="jp-AIStack-preemptibleHelp"
      >
        {trans.__(
          'By higher-priority requests, after a short notice. The kernel then keeps running, on the CPU.'
        )}
      </p>
    </div>
  );
}

/** What a share comes to on this host, and whether it is free; for anything else, what may be typed. */
export function sizeHint(
  spec: string,
  host: IHost | null,
  trans: TranslationBundle
): string {
  const share = /^\d+(\/\d+)?$/.test(spec.trim()) ? parseFraction(spec) : 0;
  const gpus = host?.devices.filter(({ kind }) => kind === 'gpu') ?? [];
  const devices = gpus.length > 0 ? gpus : (host?.devices ?? []);
  const isShare = share > 0 && share <= 1;
  if (devices.length === 0 || !isShare) {
    return trans.__(
      'For example 0.3, 20GiB, 2 (whole devices), 1/2x2 (two halves), 1g.10gb, cpu:2'
    );
  }
  const fit = devices.filter(device => device.is_divisible || share === 1);
  if (fit.length === 0) {
    return trans.__('Only whole devices are granted here, such as 1');
  }
  const free = fit.filter(
    device => !device.problem && parseFraction(device.free_fraction) >= share
  );
  const memory = formatBytes(fit[0].memory_bytes * share);
  return free.length > 0
    ? trans.__('About %1 of %2; free now', memory, fit[0].name)
    : trans.__('About %1 of %2; you will have to wait', memory, fit[0].name);
}
