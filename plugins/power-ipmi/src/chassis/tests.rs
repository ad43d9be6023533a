use super::*;

#[test]
fn power_and_faults_are_bits() {
    let seen = status(&[0x21, 0x01, 0x00]).unwrap();
    assert_eq!((seen.state, seen.raw.as_str()), (State::On, "on"));
    let seen = status(&[0x08, 0x00, 0x00, 0x00]).unwrap();
    assert_eq!(seen.state, State::Off);
    let fault = seen.extra.iter().find(|one| one.key == "fault");
    assert_eq!(fault.unwrap().value, "power fault");
    assert_eq!(status(&[1]).unwrap_err().code, "ipmi.short");
}

#[test]
fn flags_that_do_not_count_are_not_shown() {
    let once = boot(&[1, 5, 0xa0, 0x04, 0, 0, 0]).unwrap();
    assert_eq!((once.device, once.uefi), (BootDevice::Network, Some(true)));
    assert_eq!(
        boot(&[1, 5, 0x80, 0x14, 0]).unwrap().device,
        BootDevice::Cdrom
    );
    // Not valid, marked as invalid, of another parameter, of no device, of an unknown one, short.
    assert!(boot(&[1, 5, 0x20, 0x04, 0]).is_none());
    assert!(boot(&[1, 0x85, 0xa0, 0x04, 0]).is_none());
    assert!(boot(&[1, 4, 0xa0, 0x04, 0]).is_none());
    assert!(boot(&[1, 5, 0xa0, 0x00, 0]).is_none());
    assert!(boot(&[1, 5, 0xa0, 0x24, 0]).is_none());
    assert!(boot(&[1, 5]).is_none());
}
