//! Half precision (IEEE 754 binary16), converted without loss or not at all.

const F32_MANTISSA_BITS: u32 = 23;
const F16_MANTISSA_BITS: u32 = 10;
const F32_BIAS: i32 = 127;
const F16_BIAS: i32 = 15;

/// The value of a half.
pub(crate) fn to_f32(half: u16) -> f32 {
    let sign = u32::from(half >> 15) << 31;
    let exponent = i32::from(half >> F16_MANTISSA_BITS & 0x1f);
    let mantissa = u32::from(half & 0x3ff);
    let magnitude = match exponent {
        // A subnormal is a multiple of 2^-24, which f32 holds as a normal number.
        0 => (mantissa as f32 * f32::from_bits(((F32_BIAS - 24) as u32) << F32_MANTISSA_BITS)).to_bits(),
        0x1f => 0xff << F32_MANTISSA_BITS | mantissa << (F32_MANTISSA_BITS - F16_MANTISSA_BITS),
        _ => {
            ((exponent - F16_BIAS + F32_BIAS) as u32) << F32_MANTISSA_BITS
                | mantissa << (F32_MANTISSA_BITS - F16_MANTISSA_BITS)
        }
    };
    f32::from_bits(sign | magnitude)
}

/// The half of exactly this value, sign of zero included, if there is one. Infinities and NaN are not asked for.
pub(crate) fn exactly_from_f32(value: f32) -> Option<u16> {
    let bits = value.to_bits();
    let sign = (bits >> 31 << 15) as u16;
    let exponent = (bits >> F32_MANTISSA_BITS & 0xff) as i32 - F32_BIAS;
    let mantissa = bits & 0x7f_ffff;
    if exponent + F32_BIAS == 0 {
        return (mantissa == 0).then_some(sign);
    }
    if exponent > F16_BIAS {
        return None;
    }
    // Below the smallest normal half, significant bits move to the right, and the leading one becomes explicit.
    let subnormal_shift = (1 - F16_BIAS - exponent).max(0) as u32;
    let lost_bits = F32_MANTISSA_BITS - F16_MANTISSA_BITS + subnormal_shift;
    if lost_bits > F32_MANTISSA_BITS {
        return None;
    }
    let significand = mantissa | 1 << F32_MANTISSA_BITS;
    if significand & ((1 << lost_bits) - 1) != 0 {
        return None;
    }
    let kept = (significand >> lost_bits) as u16;
    // A normal number's leading bit is not stored: adding it raises the exponent by the one that is missing here.
    let exponent_below = if subnormal_shift > 0 { 0 } else { (exponent + F16_BIAS - 1) as u16 };
    Some(sign | ((exponent_below << F16_MANTISSA_BITS) + kept))
}
