import net from 'node:net'

/** Addresses that mean something else on every machine, so that nobody elsewhere has any business naming them. */
export type LocalAddress = 'loopback' | 'link-local'

const RANGES: Readonly<Record<LocalAddress, net.BlockList>> = {
  // To connect to the unspecified address is to connect to this machine.
  loopback: blockList(['127.0.0.0', 8, 'ipv4'], ['0.0.0.0', 8, 'ipv4'], ['::', 127, 'ipv6']),
  // Where clouds keep the credentials of their machines (169.254.169.254).
  'link-local': blockList(['169.254.0.0', 16, 'ipv4'], ['fe80::', 10, 'ipv6']),
}

/**
 * What kind of local address the host of a URL is, IPv4 written as IPv6 included, and `localhost` counted as loopback (RFC 6761, 6.3).
 * Undefined for all other addresses, and for names, which are not looked up.
 */
export function localAddressOf({ hostname }: URL): LocalAddress | undefined {
  if (/(?:^|\.)localhost\.?$/.test(hostname)) return 'loopback'
  const address = hostname.replace(/^\[|\]$/g, '')
  const family = net.isIPv6(address) ? 'ipv6' : 'ipv4'
  if (family === 'ipv4' && !net.isIPv4(address)) return undefined
  if (RANGES.loopback.check(address, family)) return 'loopback'
  return RANGES['link-local'].check(address, family) ? 'link-local' : undefined
}

function blockList(...subnets: readonly [network: string, prefix: number, family: net.IPVersion][]): net.BlockList {
  const list = new net.BlockList()
  for (const [network, prefix, family] of subnets) list.addSubnet(network, prefix, family)
  return list
}
