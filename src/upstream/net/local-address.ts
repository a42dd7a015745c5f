import net from 'node:net'
import { embeddedV4 } from './addresses.ts'

/** Addresses that mean something else on every machine, so that nobody elsewhere has any business naming them. */
export type LocalAddress = 'loopback' | 'link-local'

const RANGES: Readonly<Record<LocalAddress, net.BlockList>> = {
  // To connect to the unspecified address is to connect to this machine.
  loopback: blockList(['127.0.0.0', 8, 'ipv4'], ['0.0.0.0', 8, 'ipv4'], ['::', 127, 'ipv6']),
  // Where clouds keep the credentials of their machines (169.254.169.254).
  'link-local': blockList(['169.254.0.0', 16, 'ipv4'], ['fe80::', 10, 'ipv6']),
}

/**
 * What kind of local address the host of a URL is, IPv4 in any IPv6 form included, and `localhost` counted as loopback (RFC 6761, 6.3).
 * Undefined for all other addresses, and for names, which are not looked up.
 */
export function localAddressOf({ hostname }: URL): LocalAddress | undefined {
  if (/(?:^|\.)localhost\.?$/.test(hostname)) return 'loopback'
  const address = hostname.replace(/^\[|\]$/g, '')
  if (net.isIP(address) === 0) return undefined
  const forms = [address, ...embeddedV4(address)]
  if (forms.some(form => isIn(RANGES.loopback, form))) return 'loopback'
  return forms.some(form => isIn(RANGES['link-local'], form)) ? 'link-local' : undefined
}

function isIn(list: net.BlockList, address: string): boolean {
  return list.check(address, net.isIPv6(address) ? 'ipv6' : 'ipv4')
}

function blockList(...subnets: readonly [network: string, prefix: number, family: net.IPVersion][]): net.BlockList {
  const list = new net.BlockList()
  for (const [network, prefix, family] of subnets) list.addSubnet(network, prefix, family)
  return list
}
