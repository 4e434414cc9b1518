import type { IHolder, ILease, IRequest } from '../wire/types';

/** Whether a holder is the kernel itself, or was started by it (a worker, a run). */
export function isOwn(holder: IHolder, kernelId: string | null): boolean {
  return (
    !!kernelId && (isKernel(holder, kernelId) || holder.parent === kernelId)
  );
}

/** The live leases of these kernels, and of what they have started. */
export function ownLeases(
  leases: readonly ILease[],
  kernelIds: readonly string[]
): ILease[] {
  return leases
    .filter(({ state }) => state !== 'ended')
    .filter(({ holder }) => kernelIds.some(id => isOwn(holder, id)));
}

/** The live lease that the kernel itself holds. */
export function leaseOf(
  leases: readonly ILease[],
  kernelId: string
): ILease | null {
  return (
    leases.find(l => l.state !== 'ended' && isKernel(l.holder, kernelId)) ??
    null
  );
}

/** The request with which the kernel itself waits. */
export function requestOf(
  queue: readonly IRequest[],
  kernelId: string
): IRequest | null {
  return queue.find(r => isKernel(r.holder, kernelId)) ?? null;
}

function isKernel(holder: IHolder, kernelId: string): boolean {
  return holder.kind === 'kernel' && holder.id === kernelId;
}
