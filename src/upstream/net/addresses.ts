import dns from 'node:dns'
import net from 'node:net'
import { ShoalError } from '../../core/index.ts'

/** Whether a name from the outside may lead to this address. */
export type AddressFilter = (address: string) => boolean

/**
 * Addresses that are not the public internet's (RFC 6890 and the IANA special-purpose registries): this machine, this link, this site,
 * carrier NAT, documentation, benchmarks, multicast.
 */
const SPECIAL_V4 = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/3',
] as const
const SPECIAL_V6 = [
  '::/127',
  // Of a NAT64 of the site, which may embed an address in more than one way (RFC 8215).
  '64:ff9b:1::/48',
  '100::/64',
  '2001:db8::/32',
  'fc00::/7',
  'fe80::/10',
  'fec0::/10',
  'ff00::/8',
] as const

/** IPv6 prefixes of 96 bits and the like, below which an IPv4 address lies: its offset in 16-bit groups. */
const EMBEDDING: readonly { readonly prefix: readonly number[]; readonly group: number }[] = [
  // IPv4-mapped (RFC 4291), IPv4-compatible (deprecated there), IPv4-translated (RFC 2765).
  { prefix: [0, 0, 0, 0, 0, 0xffff], group: 6 },
  { prefix: [0, 0, 0, 0, 0, 0], group: 6 },
  { prefix: [0, 0, 0, 0, 0xffff, 0], group: 6 },
  // NAT64 (RFC 6052), and its local-use prefix (RFC 8215) with the address at the end.
  { prefix: [0x64, 0xff9b, 0, 0, 0, 0], group: 6 },
  { prefix: [0x64, 0xff9b, 1], group: 6 },
  // 6to4 (RFC 3056).
  { prefix: [0x2002], group: 1 },
]
/** Teredo (RFC 4380): the client's address is inverted, so that all of it is refused. */
const TEREDO = '2001::/32'

/**
 * Lets public addresses pass, and those in `allowed` (CIDRs or addresses). An IPv6 address that carries an IPv4 one is judged by both.
 * Throws ERR_CONFIG_INVALID for what is no CIDR.
 */
export function publicAddresses(allowed: readonly string[]): AddressFilter {
  const special = blockList([...SPECIAL_V4, ...SPECIAL_V6, TEREDO])
  const exempt = blockList(allowed)
  return address => {
    const forms = [address, ...embeddedV4(address)]
    if (net.isIP(address) === 0) return false
    // Either form may be what the operator had in mind.
    if (forms.some(form => isIn(exempt, form))) return true
    return !forms.some(form => isIn(special, form))
  }
}

/**
 * For net.connect and tls.connect: resolves a name to those of its addresses that pass; the connection is made to one of these and to no
 * other, whatever the name means a moment later. Nothing left: an error with the code EHOSTUNREACH.
 */
export function filteredLookup(passes: AddressFilter): net.LookupFunction {
  return (hostname, options, callback) => {
    dns.lookup(hostname, { ...options, all: true }, (error, addresses) => {
      if (error !== null) {
        callback(error, '', 0)
        return
      }
      const passed = addresses.filter(({ address }) => passes(address))
      const [first] = passed
      if (first === undefined) callback(refusal(hostname), '', 0)
      else if (options.all === true) callback(null, passed)
      else callback(null, first.address, first.family)
    })
  }
}

/** A literal address is not looked up, so that it has to be checked by itself. `hostname` as a URL has it. */
export function isRefusedLiteral(hostname: string, passes: AddressFilter): boolean {
  const address = hostname.replace(/^\[|\]$/g, '')
  return net.isIP(address) !== 0 && !passes(address)
}

function refusal(hostname: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${hostname} has no address that may be reached`), { code: 'EHOSTUNREACH' })
}

function isIn(list: net.BlockList, address: string): boolean {
  return list.check(address, net.isIPv6(address) ? 'ipv6' : 'ipv4')
}

/** The IPv4 addresses that an IPv6 address stands for, if any. */
export function embeddedV4(address: string): string[] {
  const groups = groupsOf(address)
  if (groups === undefined) return []
  return EMBEDDING.filter(({ prefix }) => prefix.every((value, index) => groups[index] === value)).map(({ group }) => {
    const [high = 0, low = 0] = groups.slice(group, group + 2)
    return `${high >> 8}.${high & 0xff}.${low >> 8}.${low & 0xff}`
  })
}

/** The eight groups of an IPv6 address. Undefined when it is none. */
function groupsOf(address: string): number[] | undefined {
  const [bare = ''] = address.split('%', 1)
  if (!net.isIPv6(bare)) return undefined
  // The URL parser writes every form in hexadecimal.
  const [head = '', tail] = new URL(`http://[${bare}]`).hostname.slice(1, -1).split('::')
  const front = head === '' ? [] : head.split(':')
  const back = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros = Array.from({ length: 8 - front.length - back.length }, () => '0')
  return [...front, ...(tail === undefined ? [] : zeros), ...back].map(group => Number.parseInt(group, 16))
}

function blockList(subnets: readonly string[]): net.BlockList {
  const list = new net.BlockList()
  for (const subnet of subnets) {
    const [network = '', bits] = subnet.split('/')
    const family = net.isIPv6(network) ? 'ipv6' : 'ipv4'
    const width = family === 'ipv6' ? 128 : 32
    const prefix = bits === undefined ? width : /^\d{1,3}$/.test(bits) ? Number(bits) : Infinity
    if (net.isIP(network) === 0 || prefix > width) {
      throw new ShoalError('ERR_CONFIG_INVALID', `"${subnet}" is not an address or a CIDR such as 10.0.0.0/8`)
    }
    list.addSubnet(network, prefix, family)
  }
  return list
}
